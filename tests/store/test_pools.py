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
