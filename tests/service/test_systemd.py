"""The notifier speaks sd_notify(3) to a real datagram socket."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpc_agent.service.notify import Notifier


@contextmanager
def listening(address: str | bytes) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        manager.bind(address)
        yield manager


def test_messages_reach_a_socket_in_the_file_system(tmp_path: Path) -> None:
    """Each method sends its assignment as one datagram."""
    address = str(tmp_path / "notify")
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    with listening(address) as manager:
        notifier.ready()
        notifier.status("2 runs")
        notifier.watchdog()
        notifier.stopping()
        received = [manager.recv(1024) for _ in range(4)]
    assert received == [b"READY=1", b"STATUS=2 runs", b"WATCHDOG=1", b"STOPPING=1"]


def test_messages_reach_an_abstract_socket() -> None:
    """An address that starts with @ is in the abstract namespace."""
    name = f"hpc-agent-test-{os.getpid()}"
    with listening(b"\0" + name.encode()) as manager:
        Notifier.from_environment({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert manager.recv(1024) == b"READY=1"


def test_reloading_carries_the_monotonic_time(tmp_path: Path) -> None:
    """systemd refuses RELOADING=1 without the time when it began."""
    address = str(tmp_path / "notify")
    with listening(address) as manager:
        Notifier(address=address).reloading()
        first, second = manager.recv(1024).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdecimal()


def test_a_status_with_newlines_stays_one_assignment(tmp_path: Path) -> None:
    """Text from outside cannot pass for another assignment."""
    address = str(tmp_path / "notify")
    with listening(address) as manager:
        Notifier(address=address).status("pending\nREADY=1\r\nWATCHDOG=trigger")
        assert manager.recv(1024) == b"STATUS=pending READY=1 WATCHDOG=trigger"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative/path"])
def test_without_a_manager_nothing_is_sent(
    address: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent runs as well from a terminal."""
    environment = {} if address is None else {"NOTIFY_SOCKET": address}
    notifier = Notifier.from_environment(environment)
    notifier.ready()
    assert notifier == Notifier()
    assert not caplog.records


def test_a_manager_that_went_away_is_logged_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dead socket costs a warning that names it."""
    address = str(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        Notifier(address=address).watchdog()
    assert address in caplog.text


def test_a_manager_that_does_not_read_blocks_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When the manager's queue is full, the message is dropped with a warning."""
    address = str(tmp_path / "notify")
    notifier = Notifier(address=address)
    with listening(address):
        for _ in range(10_000):
            notifier.watchdog()
            if caplog.records:
                break
    assert "WATCHDOG=1" in caplog.text


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({"WATCHDOG_USEC": "120000000"}, 60.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_interval_is_half_its_limit(
    variables: dict[str, str], interval: float | None
) -> None:
    """Only the process that systemd watches keeps the watchdog quiet."""
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/run/notify", **variables})
    assert notifier.watchdog_interval == interval
