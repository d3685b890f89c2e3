"""Hand-over: a successor is due in time, and never more often than each half of the limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpc_agent.code_servers.handover import is_due
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.jobs import Job, JobKind, Phase

HOUR = 3600.0
SERVER = CodeServer(
    key="srv-1",
    deployment="prod",
    location="a",
    version="1",
    deploy_data="{}",
    status=ServerStatus.SERVING,
    error=None,
    created_at=0.0,
    ready_at=130.0,
)
JOB = Job(
    key="srv-1",
    kind=JobKind.CODE_SERVER,
    phase=Phase.RUNNING,
    deployment="prod",
    location="a",
    created_at=0.0,
    submitted_at=10.0,
    started_at=100.0,
    time_limit_seconds=8 * HOUR,
)


def due_after(job: Job, *, handover_seconds: float | None = None) -> float:
    """Return how many seconds after the job's start a successor is due, by bisection."""
    assert job.started_at is not None and job.time_limit_seconds is not None
    low, high = 0.0, job.time_limit_seconds + 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        due = is_due(
            SERVER,
            job,
            now=job.started_at + middle,
            drain_seconds=180.0,
            handover_seconds=handover_seconds,
        )
        low, high = (low, middle) if due else (middle, high)
    return high


def test_successor_gets_twice_the_way_up_and_time_to_drain() -> None:
    """120 s from submission to the first answer, twice; 180 s to drain; 30 s to be safe."""
    assert due_after(JOB) == pytest.approx(8 * HOUR - 2 * 120 - 180 - 30, abs=0.1)


def test_configured_time_wins() -> None:
    """A site that knows its queue says so."""
    assert due_after(JOB, handover_seconds=HOUR) == pytest.approx(7 * HOUR, abs=0.1)


@pytest.mark.parametrize("handover_seconds", [None, HOUR])
def test_short_limit_is_shared_by_halves(handover_seconds: float | None) -> None:
    """Else each server would need its successor at once."""
    short = replace(JOB, time_limit_seconds=120.0)
    assert due_after(short, handover_seconds=handover_seconds) == pytest.approx(60, abs=0.1)


@pytest.mark.parametrize(
    "job", [replace(JOB, time_limit_seconds=None), replace(JOB, started_at=None)]
)
def test_without_a_known_end_there_is_no_hand_over(job: Job) -> None:
    """An unlimited partition, or a record that has not been seen yet."""
    assert not is_due(SERVER, job, now=1e12, drain_seconds=180.0, handover_seconds=None)
