"""What the loops ask of all live jobs at once."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

from hpc_agent.slurm.state import JobState
from hpc_agent.store import jobs, tracking, workers
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, Worker, WorkerKind
from tests.store.test_store import a_run_worker
from tests.workers import put


def job_of(worker: Worker) -> Job:
    """Return the job that counts."""
    assert worker.job is not None
    return worker.job


def add(db: Database, key: str, **changes: Any) -> Worker:
    """Add a worker whose job the scheduler has."""
    values = {"phase": Phase.QUEUED, "job_id": key.removeprefix("run-"), "submitted_at": 5.0}
    return put(db, a_run_worker(key, **(values | changes)))


def test_tracked_jobs_are_read_again_only_after_a_change(db: Database) -> None:
    """The same object tells that nothing is new."""
    before = add(db, "run-1")
    first = tracking.tracked(db, None)
    assert tracking.tracked(db, first) is first
    jobs.change(db, job_of(before).id, state=JobState.COMPLETING)
    workers.note(db, before, now=9.0, source="test")
    second = tracking.tracked(db, first)
    assert (first.leaving, second.leaving) == ((), (job_of(before).id,))
    jobs.insert(db, "run-1", "2", now=10.0)
    assert tracking.tracked(db, second).rows.keys() == {"1", "2"}


def test_job_that_goes_after_its_worker_is_not_tracked_any_more(db: Database) -> None:
    """Nothing of the worker changes then, and an idle agent would ask for it for ever."""
    worker = add(db, "run-1", phase=Phase.RUNNING)
    add(db, "run-2")
    workers.change(db, "run-1", now=9.0, source="test", phase=Phase.ENDED, ended_at=9.0)
    first = tracking.tracked(db, None)
    jobs.change(db, job_of(worker).id, state=JobState.COMPLETING)
    second = tracking.tracked(db, first)
    assert (first.leaving, second.leaving) == ((), (job_of(worker).id,))
    jobs.change(db, job_of(worker).id, is_over=True)
    assert tracking.tracked(db, second).rows.keys() == {"2"}


def test_tracked_are_those_that_the_scheduler_has(db: Database) -> None:
    """By job id; what lives in another job is apart, what has no id is searched for elsewhere."""
    first = add(db, "run-1", submitted_at=7.0)
    second = add(db, "run-2", phase=Phase.RUNNING)
    pack = add(db, "pck-3", kind=WorkerKind.PACK, phase=Phase.RUNNING, job_id="3")
    server = {"kind": WorkerKind.CODE_SERVER, "placement": Placement.PACKED}
    put(db, a_run_worker("srv-4", phase=Phase.RUNNING, pack_key="pck-3", **server))
    workers.share_job(db, "srv-4", job_of(pack))
    add(db, "run-5", phase=Phase.ENDED)
    put(db, a_run_worker("run-6", phase=Phase.RUNNING))
    tracked = tracking.tracked(db, None)
    assert tracked.rows == {
        "1": (job_of(first).id,),
        "2": (job_of(second).id,),
        "3": (job_of(pack).id,),
    }
    assert tracked.in_packs == ("srv-4",)
    assert (tracked.youngest, tracked.is_any_waiting) == (7.0, True)


def test_job_whose_worker_is_over_is_tracked_until_it_is_over_itself(db: Database) -> None:
    """It may be in the queue still, and must not be forgotten there."""
    add(db, "run-1", phase=Phase.ENDED, is_over=False)
    assert tracking.tracked(db, None).rows.keys() == {"1"}


def test_job_id_that_is_used_twice_means_both(db: Database) -> None:
    """A controller that has lost its state begins to count anew."""
    first, second = (add(db, key, job_id="1") for key in ("run-1", "run-2"))
    expected = {"1": (job_of(first).id, job_of(second).id)}
    assert tracking.tracked(db, None).rows == expected


def test_nothing_tracked_is_false(db: Database) -> None:
    """So that nobody asks the scheduler for nothing."""
    assert not tracking.tracked(db, None)


def test_next_deadline_is_that_of_a_live_worker(db: Database) -> None:
    """One whose time is over has none any more, nor has one that is over."""
    add(db, "run-1", terminate_at=50.0)
    add(db, "run-2", terminate_at=10.0, cancelled_at=11.0)
    add(db, "run-3", terminate_at=20.0, phase=Phase.ENDED)
    assert tracking.next_deadline(db, 12.0) == 50.0


def test_runs_are_asked_for_round_and_round(db: Database) -> None:
    """Each gets its turn, whatever their number; none twice in one turn."""
    for number in range(5):
        add(db, f"run-{number}", terminate_at=1.0 if number == 3 else None)
    after, turns = "", []
    for _ in range(4):
        asked = tracking.runs_to_ask_for(db, after, 3)
        after = str(asked[-1].run_id)
        turns.append("".join(worker.key[-1] for worker in asked))
    assert turns == ["012", "401", "240", "124"]
    assert len(tracking.runs_to_ask_for(db, after, 9)) == 4
