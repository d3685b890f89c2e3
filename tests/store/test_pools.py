"""What a pool has and what waits for it is counted."""

from __future__ import annotations

from sqlite_utils import Database

from hpc_agent.store import pauses, pools
from hpc_agent.store.phases import Phase
from hpc_agent.store.pools import Occupancy
from hpc_agent.store.workers import Placement, WorkerKind
from tests.store.test_store import a_run_worker
from tests.workers import put


def test_occupancy_counts_slots_members_and_what_waits(db: Database) -> None:
    """Allocations that are over have no slots; what is paused waits for somebody else."""
    waits = {"phase": Phase.INTENT, "placement": Placement.POOL, "pool": "warm"}
    for key, phase in (("one", Phase.RUNNING), ("two", Phase.QUEUED), ("over", Phase.ENDED)):
        put(db, a_run_worker(key, kind=WorkerKind.POOL, pool="warm", phase=phase))
    for key, node in (("one", 0), ("one", 1), ("over", 0)):
        said = pools.Supervisor(node=node, hostname="c1", slots=4, templates={})
        pools.keep_supervisor(db, key, said)
    for key in ("lives", "lives-too"):
        put(db, a_run_worker(key, pool="warm", phase=Phase.RUNNING, pack_key="one"))
    put(db, a_run_worker("waits", **waits))
    put(db, a_run_worker("paused", location="held", **waits))
    put(db, a_run_worker("elsewhere", **{**waits, "pool": "other"}))
    pauses.begin(db, pauses.Pause("held", pauses.EVERY_DEPLOYMENT, since=1.0))

    assert pools.occupancy(db, "warm") == Occupancy(allocations=2, slots=8, busy=2, waiting=1)
    assert pools.occupancy(db, "other") == Occupancy(allocations=0, slots=0, busy=0, waiting=1)


def test_templates_are_those_of_the_locations_that_use_the_pool(db: Database) -> None:
    """Not of one that was renamed, nor of a branch that nobody has used for a week."""
    week = 7 * 86400.0

    def keep(deployment: str, location: str, at: float) -> None:
        content = {"id": f"{deployment} {location}"}
        pools.keep_template(
            db, "warm", deployment=deployment, location=location, content=content, now=at
        )

    def ids(now: float) -> list[str]:
        found = pools.templates(db, "warm", ["here", "there"], now=now, limit=20)
        return [each["id"] for each in found]

    keep("prod", "here", 10.0)
    keep("branch", "here", 5.0)
    keep("prod", "renamed", 11.0)
    keep("prod", "there", 12.0)
    assert ids(13.0) == ["prod there", "prod here", "branch here"]
    assert ids(week + 8) == ["prod there", "prod here"]
    keep("prod", "there", week + 11.5)
    assert db.execute("SELECT count(*) FROM pool_templates").fetchone() == (1,)
