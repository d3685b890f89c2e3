"""What a change writes down besides itself."""

from __future__ import annotations

from hpc_agent.slurm.state import JobState
from hpc_agent.store import workers
from hpc_agent.store.phases import Phase
from hpc_agent.workers.change import Change
from tests.agent.conftest import Bench


async def test_state_of_the_job_is_in_the_history_with_what_changes_in_the_worker(
    bench: Bench,
) -> None:
    """Also where the phase stays, which tells who looks seldom that there is something new."""
    await bench.add("run-1", phase=Phase.RUNNING, job_id="7", is_claimed=True)
    change = Change(worker={"waits_for": "its end"}, job_id="7", job={"state": JobState.COMPLETING})
    await bench.context.changes.apply("run-1", lambda *_: change, source="watch")
    history = await bench.context.store.run(lambda db: workers.history(db, "run-1"))
    assert [(each.source, each.state) for each in history][-1] == (
        "watch",
        JobState.COMPLETING.value,
    )
