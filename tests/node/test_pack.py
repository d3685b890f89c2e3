"""A pack follows its orders: servers come, go and crash one by one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc_agent.jobs.node_program import build_node_program

LIMIT_SECONDS = 30.0
SCRIPT = """#!/bin/bash
echo "$$" > pid
trap 'echo ended > farewell; exit 0' TERM
while :; do sleep 0.1; done
"""


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


class RunningPack:
    """A pack's process and the job directories around it."""

    def __init__(self, root: Path, *, idle_seconds: float) -> None:
        self.jobs = root / "jobs"
        self.directory = self.jobs / "pck-1"
        (self.directory / "servers").mkdir(parents=True)
        spec = {"version": 2, "key": "pck-1", "kind": "pack", "argv": []}
        (self.directory / "spec.json").write_text(json.dumps(spec | {"idle_seconds": idle_seconds}))
        program = build_node_program(root)
        self.log = (root / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-S", str(program), str(self.directory)],
            stdout=self.log,
            stderr=self.log,
        )

    def order(self, key: str, script: str = SCRIPT) -> Path:
        """Order a server and return its directory."""
        directory = self.jobs / key
        directory.mkdir()
        (directory / "job.sh").write_text(script)
        (self.directory / "servers" / key).touch()
        return directory

    def withdraw(self, key: str) -> None:
        """Take an order back."""
        (self.directory / "servers" / key).unlink()

    def said(self) -> str:
        """Return what it has logged."""
        return Path(self.log.name).read_text()

    def close(self) -> None:
        """End what still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(LIMIT_SECONDS)
        self.log.close()


@pytest.fixture
def pack(tmp_path: Path) -> Iterator[RunningPack]:
    running = RunningPack(tmp_path, idle_seconds=LIMIT_SECONDS * 4)
    yield running
    running.close()


def lives(directory: Path) -> bool:
    """Whether the server of a directory has been started and has not ended."""
    pid = directory / "pid"
    return (
        pid.exists() and bool(pid.read_text()) and Path(f"/proc/{pid.read_text().strip()}").exists()
    )


def test_servers_are_started_and_ended_one_by_one(pack: RunningPack) -> None:
    """Taking one order back ends that server in good order, and no other."""
    first, second = pack.order("srv-1"), pack.order("srv-2")
    wait_until(lambda: lives(first) and lives(second))
    pack.withdraw("srv-1")
    wait_until(lambda: (first / "farewell").exists() and not lives(first))
    assert lives(second)


def test_server_that_crashes_is_not_started_again(pack: RunningPack) -> None:
    """Its neighbour does not notice; a new server has a new key."""
    neighbour = pack.order("srv-1")
    broken = pack.order("srv-2", "echo x >> starts; exit 3")
    wait_until(lambda: (broken / "starts").exists() and lives(neighbour))
    third = pack.order("srv-3")
    wait_until(lambda: lives(third))
    assert (broken / "starts").read_text() == "x\n"
    assert lives(neighbour)


def test_end_of_a_script_without_a_report_is_noted(pack: RunningPack) -> None:
    """Its node program has not come to that: nobody else can tell the agent."""
    broken = pack.order("srv-2", "echo module: command not found; exit 3")
    wait_until((broken / "exit.json").exists)
    record = json.loads((broken / "exit.json").read_text())
    assert (record["key"], record["outcome"], record["exit_code"]) == ("srv-2", "exited", 3)
    assert record["stderr_tail"] == "module: command not found\nits script ended with status 3"


def test_report_of_the_server_itself_is_left_as_it_is(pack: RunningPack) -> None:
    """It knows more."""
    first = pack.order("srv-1", "echo its own > exit.json; exit 3")
    second = pack.order("srv-2", "exit 3")
    wait_until((second / "exit.json").exists)
    assert (first / "exit.json").read_text() == "its own\n"


def test_server_that_lives_in_another_job_is_not_said_to_have_ended(pack: RunningPack) -> None:
    """Of a pack that was submitted twice, one job has the claims."""
    claim = '{"slurm_job_id": "7", "restart_count": 0}'
    elsewhere = pack.order("srv-1", f"echo '{claim}' > claim; exit 0")
    here = pack.order("srv-2", "exit 3")
    wait_until((here / "exit.json").exists)
    wait_until(lambda: "server srv-1 ended" in pack.said())
    assert not (elsewhere / "exit.json").exists()


def test_server_whose_directory_is_refused_for_a_while_is_started(pack: RunningPack) -> None:
    """The disk may be away, or full."""
    late = pack.jobs / "srv-1"
    (pack.directory / "servers" / "srv-1").touch()
    wait_until(lambda: "cannot start" in pack.said())
    late.mkdir()
    (late / "job.sh").write_text(SCRIPT)
    wait_until(lambda: lives(late))


def test_end_of_the_pack_is_passed_on(pack: RunningPack) -> None:
    """A signal to the job ends all servers in good order before the pack goes."""
    first, second = pack.order("srv-1"), pack.order("srv-2")
    wait_until(lambda: lives(first) and lives(second))
    pack.process.send_signal(signal.SIGUSR1)
    assert pack.process.wait(LIMIT_SECONDS) == 0
    assert (first / "farewell").exists()
    assert (second / "farewell").exists()
    record = json.loads((pack.directory / "exit.json").read_text())
    assert record["reason"] == "ended on SIGUSR1"


def test_server_that_takes_its_time_is_asked_to_end_once(pack: RunningPack) -> None:
    """A second signal could cut its farewell short."""
    slow = (
        "echo $$ > pid; trap 'echo x >> asked; sleep 3; exit 0' TERM; while :; do sleep 0.1; done"
    )
    server = pack.order("srv-1", slow)
    wait_until(lambda: lives(server))
    pack.withdraw("srv-1")
    wait_until(lambda: (server / "asked").exists() and not lives(server))
    assert (server / "asked").read_text() == "x\n"


def test_pack_without_orders_ends_by_itself(tmp_path: Path) -> None:
    """It gives its resources back after a while."""
    running = RunningPack(tmp_path, idle_seconds=1.0)
    try:
        assert running.process.wait(LIMIT_SECONDS) == 0
    finally:
        running.close()
    record = json.loads((running.directory / "exit.json").read_text())
    assert record["reason"] == "no server was ordered for 1 s"


def test_pack_whose_server_has_crashed_ends_by_itself(tmp_path: Path) -> None:
    """An order that nobody takes back asks for nothing any more."""
    running = RunningPack(tmp_path, idle_seconds=1.0)
    try:
        broken = running.order("srv-1", "echo x > starts; exit 3")
        assert running.process.wait(LIMIT_SECONDS) == 0
        assert (broken / "starts").exists()
    finally:
        running.close()
