"""Packs: servers with the same options share a job, and stand as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpc_agent.code_servers.packs import Packs
from hpc_agent.jobs.directory import ORDERS
from hpc_agent.store import submissions, workers
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, WorkerKind
from hpc_agent.workers.change import Change
from tests.agent.conftest import Clock
from tests.code_servers.conftest import (
    Harbour,
    deployment,
    entry,
    fleet_config,
    make_harbour,
    make_preparation,
)
from tests.workers import a_worker

NAMES = ("a", "b", "c")
PROD = deployment("prod", *(entry(name) for name in NAMES))


def harbour_of(tmp_path: Path, store: Store, **settings: Any) -> Harbour:
    """A fleet whose servers are packed, two to a job."""
    packed = {"placement": "packed", "packed": {"servers_per_job": 2}}
    config = fleet_config(tmp_path, code_servers=packed, **settings)
    return make_harbour(config, store, Clock())


async def packs_of(harbour: Harbour) -> dict[str, set[str]]:
    """Return the locations in each pack."""
    found: dict[str, set[str]] = {}
    for server in await harbour.servers():
        key = server.key
        worker = await harbour.store.run(lambda db, key=key: workers.get(db, key))  # type: ignore[misc]
        found.setdefault(str(worker.pack_key), set()).add(server.location)
    return found


async def test_servers_fill_one_pack_and_then_the_next(tmp_path: Path, store: Store) -> None:
    """Each has an order in the directory of its pack."""
    harbour = harbour_of(tmp_path, store)
    await harbour.reconcile(PROD)
    packs = await packs_of(harbour)
    assert sorted(map(len, packs.values())) == [1, 2]
    keys = {server.key for server in await harbour.servers()}
    directory = harbour.config.work_dir / "jobs"
    assert {order.name for pack in packs for order in (directory / pack / ORDERS).iterdir()} == keys
    assert set(await store.run(lambda db: submissions.single(db, 1e12))) == set(packs)


async def test_other_options_want_another_pack(tmp_path: Path, store: Store) -> None:
    """A job has one set of options."""
    own = {"b": {"code_server_options": {"mem": "4G"}}}
    harbour = harbour_of(tmp_path, store, locations=own)
    await harbour.reconcile(PROD)
    assert sorted(map(sorted, (await packs_of(harbour)).values())) == [["a", "c"], ["b"]]


async def test_pack_near_its_end_takes_no_new_server(tmp_path: Path, store: Store) -> None:
    """It would have to hand over soon."""
    harbour = harbour_of(tmp_path, store)
    await harbour.reconcile(deployment("prod", entry("a")))
    (old,) = await packs_of(harbour)
    await harbour.let_run(old, started_at=0.0, deadline_at=harbour.clock.now * 1.5)
    await harbour.reconcile(deployment("prod", entry("a"), entry("b")))
    assert sorted(map(len, (await packs_of(harbour)).values())) == [1, 1]


async def test_server_has_waited_for_its_pack_since_it_came_in(
    tmp_path: Path, store: Store
) -> None:
    """Else it would be given up for the time that others have waited."""
    harbour = harbour_of(tmp_path, store)
    await harbour.reconcile(deployment("prod", entry("a")))
    (pack,) = await packs_of(harbour)
    now = harbour.clock.now
    queued = Change(phase=Phase.QUEUED, job_id="17", is_current=True)
    await harbour.changes.apply(pack, lambda *_: queued, source="sbatch")
    harbour.clock.now += 3600
    await harbour.reconcile(deployment("prod", entry("a"), entry("b")))
    assert len(await packs_of(harbour)) == 1
    found = [
        await store.run(lambda db, key=each.key: workers.get(db, key))  # type: ignore[misc]
        for each in await harbour.servers()
    ]
    assert [(each.job_id, each.submitted_at) for each in found] == [("17", now), ("17", now + 3600)]


async def test_server_stands_as_its_pack_stands_when_it_comes_in(
    tmp_path: Path, store: Store
) -> None:
    """The pack may start while the order is being written: nobody would tell of that again."""
    harbour = harbour_of(tmp_path, store)
    await harbour.reconcile(deployment("prod", entry("a")))
    (pack,) = await packs_of(harbour)
    config = harbour.config
    packs = Packs(
        config.code_servers, store, make_preparation(config), harbour.changes, harbour.clock
    )
    worker = await packs.board(
        a_worker(
            key="srv-late",
            kind=WorkerKind.CODE_SERVER,
            placement=Placement.PACKED,
            phase=Phase.INTENT,
            deployment="prod",
            location="b",
            created_at=harbour.clock.now,
        ),
        [],
    )
    await harbour.let_run(pack, started_at=5.0, deadline_at=9000.0)
    await store.run(lambda db: packs.insert(db, worker))
    found = await store.run(lambda db: workers.get(db, "srv-late"))
    assert (found.pack_key, found.phase, found.job_id) == (pack, Phase.RUNNING, "17")
    assert found.deadline_at == 9000.0
