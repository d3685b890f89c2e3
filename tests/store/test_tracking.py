"""What the loops ask of all live jobs at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from hpc_agent.slurm.state import JobState
from hpc_agent.store import jobs, tracking
from hpc_agent.store.jobs import Phase
from hpc_agent.store.schema import MIGRATIONS
from tests.store.test_store import a_job


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "agent.db")
    MIGRATIONS.apply(database)
    yield database
    database.close()


def add(db: Database, key: str, **changes: Any) -> None:
    """Add a job that the scheduler has."""
    values = {"phase": Phase.QUEUED, "job_id": key.removeprefix("run-"), "submitted_at": 5.0}
    jobs.insert(db, a_job(key, **(values | changes)))


def test_tracked_jobs_are_read_again_only_after_a_change(db: Database) -> None:
    """The same object tells that nothing is new."""
    add(db, "run-1")
    first = tracking.tracked(db, None)
    assert tracking.tracked(db, first) is first
    jobs.change(db, "run-1", now=9.0, source="test", state=JobState.COMPLETING)
    second = tracking.tracked(db, first)
    assert (first.is_any_leaving, second.is_any_leaving) == (False, True)


def test_tracked_are_those_that_the_scheduler_has(db: Database) -> None:
    """By job id; what lives in another job is apart, what has no id is searched for elsewhere."""
    add(db, "run-1", submitted_at=7.0)
    add(db, "run-2", phase=Phase.RUNNING)
    add(db, "run-3", pack_key="pck-1", job_id="1")
    add(db, "run-4", phase=Phase.ENDED)
    add(db, "run-5", phase=Phase.RUNNING, job_id=None)
    tracked = tracking.tracked(db, None)
    assert tracked.keys == {"1": "run-1", "2": "run-2"}
    assert tracked.in_packs == ("run-3",)
    assert (tracked.youngest, tracked.is_any_waiting) == (7.0, True)


def test_nothing_tracked_is_false(db: Database) -> None:
    """So that nobody asks the scheduler for nothing."""
    assert not tracking.tracked(db, None)


def test_next_deadline_is_that_of_a_live_job(db: Database) -> None:
    """One that was cancelled or is over has none any more."""
    add(db, "run-1", terminate_at=50.0)
    add(db, "run-2", terminate_at=10.0, cancelled_at=11.0)
    add(db, "run-3", terminate_at=20.0, phase=Phase.ENDED)
    assert tracking.next_deadline(db) == 50.0


def test_runs_are_asked_for_round_and_round(db: Database) -> None:
    """Each gets its turn, whatever their number; none twice in one turn."""
    for number in range(5):
        add(db, f"run-{number}", terminate_at=1.0 if number == 3 else None)
    after, turns = "", []
    for _ in range(4):
        asked = tracking.runs_to_ask_for(db, after, 3)
        after = str(asked[-1].run_id)
        turns.append("".join(job.key[-1] for job in asked))
    assert turns == ["012", "401", "240", "124"]
    assert len(tracking.runs_to_ask_for(db, after, 9)) == 4
