"""A port over there that leads here: through a real sshd, and the program that lets others in."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import psutil
import pytest

from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.slurm.ssh_forward import Listening, RemotePort
from hpc_agent.slurm.ssh_shared import SharedConnection
from tests.control_plane.running import poll
from tests.ssh import Sshd, running_sshd

SETTINGS = {"bind": "127.0.0.1", "port": 0, "allow": [], "must": False}
MEGABYTES = os.urandom(1 << 20) * 8


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes, to the end."""

    def handle(self) -> None:
        while chunk := self.request.recv(1 << 16):
            self.request.sendall(chunk)


class Server(socketserver.ThreadingTCPServer):
    """Stands where the relay is."""

    daemon_threads = True
    request_queue_size = 128


class Outside:
    """Opens the port as the agent does."""

    def __init__(self, shared: SharedConnection, program: Path, server: Server) -> None:
        self.argv = [sys.executable, str(program), "--forward"]
        self.port = RemotePort(shared, local_port=server.server_address[1])

    def open(self, **settings: Any) -> Listening:
        return self.port.open(self.argv, {**SETTINGS, **settings})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Echo) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()


@pytest.fixture
def outside(sshd: Sshd, server: Server, tmp_path: Path) -> Iterator[Outside]:
    shared = SharedConnection(sshd.target)
    opened = Outside(shared, build_node_program(tmp_path), server)
    yield opened
    opened.port.close()
    shared.close()


def exchange(listening: Listening, data: bytes) -> bytes:
    """Send all, say that it is all, and return what comes back."""
    received = bytearray()
    with socket.create_connection((listening.host, listening.port), timeout=30) as connection:

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        while chunk := connection.recv(1 << 16):
            received += chunk
        sending.join()
    return bytes(received)


def test_what_goes_in_comes_out_here_and_back(outside: Outside) -> None:
    """More than all buffers hold, in both directions at once; the end is passed on as well."""
    assert exchange(outside.open(), MEGABYTES) == MEGABYTES


def test_many_connections_go_through_side_by_side(outside: Outside) -> None:
    """One that is silent keeps nobody waiting."""
    listening = outside.open()
    with socket.create_connection((listening.host, listening.port), timeout=30):
        answers: dict[int, bytes] = {}

        def ask(number: int) -> None:
            answers[number] = exchange(listening, b"%d" % number * 50_000)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: b"%d" % number * 50_000 for number in range(40)}


def test_silent_connection_is_not_asked_again_and_again(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parked ones are many, which is how code servers wait: each is asked when it has something."""
    asked = 0
    receive = paramiko.Channel.recv

    def recv(channel: paramiko.Channel, size: int) -> bytes:
        nonlocal asked
        asked += 1
        return receive(channel, size)

    listening = outside.open()
    monkeypatch.setattr(paramiko.Channel, "recv", recv)
    with socket.create_connection((listening.host, listening.port), timeout=30) as connection:
        for _ in range(5):
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            time.sleep(0.1)
        # In vain and then with an answer, each time; without waiting it would be thousands.
        assert asked <= 20


def test_networks_that_are_not_allowed_are_sent_away(outside: Outside) -> None:
    """The relay itself sees the loopback address only, so it is the forwarder that looks."""
    assert exchange(outside.open(allow=["127.0.0.0/8"]), b"x") == b"x"


def test_peer_of_another_network_gets_nothing(outside: Outside) -> None:
    """Its connection is closed before anything is sent on."""
    listening = outside.open(allow=["192.0.2.0/24", "2001:db8::/32"])
    with socket.create_connection((listening.host, listening.port), timeout=30) as connection:
        assert connection.recv(1) == b""


class Curt(socketserver.BaseRequestHandler):
    """Ends each connection at once, as the relay does with who shows no token."""


def test_what_the_relay_has_ended_is_held_by_nobody(
    outside: Outside, server: Server, tmp_path: Path
) -> None:
    """Whoever connects and says nothing would keep descriptors of forwarder and agent for ever."""
    listening = outside.open()
    server.RequestHandlerClass = Curt
    there = next(
        process
        for process in psutil.process_iter(["cmdline"])
        if "--forward" in (process.info["cmdline"] or [])
        and any(str(tmp_path) in word for word in process.info["cmdline"])
    )
    here = psutil.Process()
    before = there.num_fds(), here.num_fds()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            silent = socket.create_connection((listening.host, listening.port), timeout=30)
            assert stack.enter_context(silent).recv(1) == b""
        # Each end of a connection is closed in a thread of its own.
        most_here = before[1] + 20 + 2
        poll(
            lambda: there.num_fds() <= before[0] and here.num_fds() <= most_here,
            "descriptors given back",
            10,
        )


def test_lost_connection_is_seen_and_the_same_port_opened_again(
    outside: Outside, sshd: Sshd
) -> None:
    """The program over there ends with the connection, and frees its port."""
    first = outside.open()
    sshd.end_sessions()
    deadline = time.monotonic() + 30
    while outside.port.is_open and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not outside.port.is_open
    while time.monotonic() < deadline:
        try:
            again = outside.open(port=first.port, must=True)
            break
        except SchedulerUnavailableError:
            time.sleep(0.2)
    assert again == first
    assert exchange(again, b"x") == b"x"


def test_port_that_must_be_it_and_is_taken_is_an_error(outside: Outside, server: Server) -> None:
    """Without must, another one is taken."""
    taken = server.server_address[1]
    with pytest.raises(SchedulerUnavailableError, match=rf"127\.0\.0\.1.*{taken}.*in use"):
        outside.open(port=taken, must=True)
    assert outside.open(port=taken).port != taken


def test_sshd_that_forwards_nothing_says_what_to_do(tmp_path: Path, server: Server) -> None:
    """The words name both ways out."""
    with running_sshd(tmp_path / "sshd", {"A": "b"}, more=["AllowTcpForwarding no"]) as sshd:
        shared = SharedConnection(sshd.target)
        outside = Outside(shared, build_node_program(tmp_path), server)
        with pytest.raises(SchedulerUnavailableError, match=r"AllowTcpForwarding.*direct"):
            outside.open()
        outside.port.close()
        shared.close()


def test_program_that_cannot_be_run_is_told(outside: Outside) -> None:
    """With the words of the other side."""
    outside.argv = ["no-such-python"]
    with pytest.raises(SchedulerUnavailableError, match=r"cannot be opened.*no-such-python"):
        outside.open()
