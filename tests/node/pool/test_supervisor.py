"""A supervisor goes when it is told to, and leaves nothing behind; its members are kept apart."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .running import LIMIT_SECONDS, RunningPool, is_alive, template, wait_until

_WAIT = ["/bin/sh", "-c", "echo $$; exec sleep 300"]

Start = Callable[..., RunningPool]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a pool; it is ended with the test."""
    started = []

    def begin(**settings: Any) -> RunningPool:
        started.append(RunningPool(tmp_path / "pool", **settings))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def reason(pool: RunningPool) -> str:
    """Wait for the end of an allocation, and return why it ended."""
    assert pool.process.wait(LIMIT_SECONDS) == 0
    record = json.loads((pool.directory / "exit.json").read_text())
    return str(record["reason"])


def supervisor_log(pool: RunningPool) -> str:
    """Return what the supervisor has said."""
    return (pool.root / "log").read_text()


def test_idle_allocation_ends(start: Start) -> None:
    """It says so first, to be given nothing more."""
    pool = start(idle_seconds=1.0)
    assert reason(pool) == "it had no member for 1 s"
    assert pool.agent.orders.said["is_leaving"]


def test_agent_ends_an_allocation(start: Start) -> None:
    """When its last member is over."""
    pool = start()
    member = pool.member(1, _WAIT)
    wait_until(lambda: member.stdout, "it does not start")
    pool.agent.change(is_leaving=True)
    wait_until(lambda: pool.agent.orders.said["is_leaving"], "it does not leave")
    late = pool.member(2, ["/bin/true"])
    assert pool.process.poll() is None
    pool.agent.change(end=[(member.key, "TERM")])
    assert reason(pool) == "the agent has ended the allocation"
    assert member.exit_record()["ended_on"] == "SIGTERM"
    assert not late.log


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_signal_reaches_all_members(start: Start, number: signal.Signals) -> None:
    """They end as jobs do: a member whose run is to stay open is killed outright."""
    pool = start()
    closing, open_left = pool.member(1, _WAIT), pool.member(2, _WAIT, leave_open_on=[number.name])
    wait_until(lambda: closing.stdout and open_left.stdout, "they do not start")
    pool.process.send_signal(number)
    assert reason(pool) == f"ended on {number.name}"
    assert closing.exit_record()["ended_on"] == number.name
    assert closing.exit_record()["signal"] == signal.SIGTERM
    assert open_left.exit_record()["signal"] == signal.SIGKILL


def test_killed_supervisor_leaves_nothing(start: Start, code: Path) -> None:
    """Neither template nor workers, slot programs, or the process that calls the agent."""
    pool = start()
    made = template(code)
    pool.warm(made)
    warm = pool.member(1, [sys.executable, "-m", "member", "stay"], made)
    cold = pool.member(2, _WAIT)
    wait_until(lambda: warm.stdout.count("\n") == 2 and cold.stdout, "they do not start")
    processes = psutil.Process(pool.process.pid).children(recursive=True)
    daemon = int(warm.stdout.splitlines()[1])
    assert {int(cold.stdout), warm.said()["pid"], daemon} <= {each.pid for each in processes}
    pool.process.kill()
    pool.process.wait()
    _, left = psutil.wait_procs(processes, LIMIT_SECONDS)
    assert left == []


def test_process_that_calls_the_agent_is_replaced(start: Start) -> None:
    """Work goes on to come."""
    pool = start()
    wait_until(lambda: pool.agent.orders.calls, "it does not call")
    (caller,) = psutil.Process(pool.process.pid).children()
    caller.kill()
    member = pool.member(1, ["/bin/true"])
    assert member.exit_record()["exit_code"] == 0


def test_member_is_started_once(start: Start) -> None:
    """However often the agent says so."""
    pool = start()
    member = pool.member(1, ["/bin/sh", "-c", "echo x"])
    member.exit_record()
    pool.agent.change(start=[member.key, member.key])
    pool.member(2, ["/bin/true"]).exit_record()
    assert member.stdout == "x\n"
    wait_until(lambda: pool.events(member) == ["started", "exited"], "its end is not reported")


def test_member_that_ended_before_its_claim_is_tried_again(start: Start, tmp_path: Path) -> None:
    """After a pause, as long as the agent wants it; its CPUs are free meanwhile, and once."""
    pool = start(slots=4)
    blocked = tmp_path / "pool" / "jobs" / "run-1" / "slurm.out"
    blocked.mkdir(parents=True)
    member = pool.member(1, ["/bin/sh", "-c", "echo x"])
    wait_until(lambda: "run-1 had not claimed its job" in supervisor_log(pool), "it has not ended")
    blocked.rmdir()
    assert member.exit_record()["exit_code"] == 0
    assert member.stdout == "x\n"
    assert supervisor_log(pool).count("member run-1 is process") == 2
    wait_until(lambda: pool.agent.orders.said["held"] == [], "it is held")
    allowed = ["/bin/sh", "-c", "grep Cpus_allowed_list /proc/self/status; exec sleep 300"]
    members = [pool.member(number, allowed) for number in (2, 3)]
    wait_until(lambda: all(each.stdout for each in members), "they do not start")
    cpus = len(os.sched_getaffinity(0))
    assert len({each.stdout for each in members}) == min(2, cpus)


def test_hostile_answers_start_nothing(start: Start, tmp_path: Path) -> None:
    """Names that lead elsewhere, and what is no answer at all."""
    pool = start()
    (tmp_path / "pool" / "elsewhere").mkdir()
    pool.agent.change(start=["../elsewhere", "run-1/../../elsewhere", 7, None])
    pool.agent.change(start=[], end=["run-1"], templates=[{"id": "../x"}])
    pool.agent.change(end=[], templates=[])
    assert pool.member(1, ["/bin/true"]).exit_record()["exit_code"] == 0
    assert list((tmp_path / "pool" / "elsewhere").iterdir()) == []


def test_greedy_members_harm_no_neighbour(start: Start, code: Path) -> None:
    """One that eats memory and one that multiplies are ended; others do not notice.

    One of them has 150 MiB in common with four children, which it has once.
    """
    pool = start(memory_mb=300)
    made = template(code)
    pool.warm(made)

    def member(number: int, what: str) -> Any:
        return pool.member(number, [sys.executable, "-m", "member", what], made)

    neighbour, eater, bomb = member(1, "stay"), member(2, "eat"), member(3, "multiply")
    forking = member(4, "fork")
    assert eater.exit_record()["outcome"] == "out_of_memory"
    assert "its limit is 300 MiB" in eater.exit_record()["reason"]
    assert "and its limit is 512" in bomb.exit_record()["reason"]
    assert "and its limit is 512" in bomb.exit_record()["stderr_tail"]  # as its run is told
    assert bomb.exit_record()["signal"] == signal.SIGKILL
    assert not neighbour.has_ended
    assert is_alive(neighbour.said()["pid"])
    wait_until(lambda: forking.stdout.count("\n") == 2 or forking.has_ended, "it does not fork")
    assert not forking.has_ended, forking.exit_record()["reason"]
    score = Path(f"/proc/{neighbour.said()['pid']}/oom_score_adj").read_text()
    assert score == "500\n"
