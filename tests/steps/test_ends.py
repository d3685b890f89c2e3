"""How jobs of steps end, start again and are told, beyond the step API's own answers."""

from __future__ import annotations

from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.workers import evidence
from tests.steps.conftest import Asking
from tests.steps.test_api import a_command


async def test_step_that_never_claimed_its_work_is_begun_again(asking: Asking) -> None:
    """A node that refuses a job leaves it COMPLETED: nothing of the command has run."""
    await asking.submit(a_command("solve"))
    await asking.submitted("11")
    worker = await asking.step("solve")
    record = JobRecord(
        job_id="11",
        name=f"hpc-agent:{worker.key}",
        state=JobState.COMPLETED,
        source="sacct",
        exit_code=0,
    )
    await asking.bench.context.changes.apply(
        worker.key,
        lambda worker, own: evidence.observe_record(worker, own[0], record, 1000.0),
        source="sacct",
    )
    assert (await asking.step("solve")).outcome is JobState.LAUNCH_FAILED
    await asking.conclude.step()
    assert (await asking.step("solve")).attempt == 2
