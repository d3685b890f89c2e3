"""The token of a job that has ended is good for its last words, and for nothing else."""

from __future__ import annotations

import pytest

from hpc_agent.agent.conclude import ConcludeLoop
from hpc_agent.agent.job_reports import JobReports
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.relay.identity import JobReport
from hpc_agent.slurm.state import JobState
from hpc_agent.store import workers
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench

TOKENS = JobTokens(b"secret")
TOKEN = TOKENS.token("run-1")
EXIT = {
    "version": 1,
    "key": "run-1",
    "exit_code": 0,
    "signal": None,
    "outcome": "exited",
    "reason": "exited with code 0",
    "started_at": 990.0,
    "ended_at": 1000.0,
    "hostname": "c1",
    "slurm_job_id": "7",
    "restart_count": 0,
}
EXITED = JobReport(event="exited", hostname="c1", slurm_job_id="7", exit=EXIT)


@pytest.fixture
async def reports(bench: Bench) -> JobReports:
    """A job that runs, and whose token the relay has believed a moment ago."""
    await bench.add(phase=Phase.RUNNING, job_id="7", started_at=990.0, is_claimed=True)
    reports = JobReports(bench.context, TOKENS, spooled=lambda _: False)
    identity = await reports.identify(TOKEN)
    assert identity is not None
    assert not identity.is_over
    return reports


async def test_token_ends_with_the_report_of_the_end(reports: JobReports) -> None:
    """At once, whatever was believed before; the report itself may be repeated."""
    identity = await reports.identify(TOKEN)
    assert identity is not None
    assert (await reports.receive(identity, EXITED)).proceed
    again = await reports.identify(TOKEN)
    assert again is not None
    assert again.is_over
    assert (await reports.receive(again, EXITED)).proceed


async def test_token_ends_when_slurm_says_so(bench: Bench, reports: JobReports) -> None:
    """The last word is not waited for: the control plane may be away for hours."""
    bench.control_plane.status = 503
    await bench.context.store.run(
        lambda db: workers.change(
            db, "run-1", now=bench.clock.now, source="slurm", phase=Phase.ENDED,
            outcome=JobState.NODE_FAIL, ended_at=1000.0,
        )
    )  # fmt: skip
    loop = ConcludeLoop(
        bench.context,
        None,  # type: ignore[arg-type]  # no code server is concluded here
        spooled=lambda _: False,
        revoke=reports.forget,
    )
    await loop.step()
    identity = await reports.identify(TOKEN)
    assert identity is not None
    assert identity.is_over
    assert (await bench.job()).concluded_at is None


async def test_last_words_have_an_end(bench: Bench, reports: JobReports) -> None:
    """A minute after the last word on a worker, its token is nobody's."""
    await bench.context.store.run(
        lambda db: workers.change(
            db, "run-1", now=bench.clock.now, source="t", phase=Phase.ENDED,
            outcome=JobState.COMPLETED, ended_at=1000.0, concluded_at=bench.clock.now,
        )
    )  # fmt: skip
    reports.forget("run-1")
    assert await reports.identify(TOKEN) is not None
    bench.clock.now += 61
    assert await reports.identify(TOKEN) is None
