"""Packs: Slurm jobs that several code servers share, each with a job directory of its own.

A server is put into a pack by an order that the pack's node program reads; nothing is submitted for
it. Its state follows the pack's, but for its own start and end, which it tells itself.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlite_utils import Database

from hpc_agent.config import CodeServers, Environment
from hpc_agent.jobs.directory import NodeSpec
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.preparation import JobPlan, JobPreparation
from hpc_agent.store import workers
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers.changes import Changes


class Packs:
    """Finds room for code servers, or makes it."""

    def __init__(
        self,
        settings: CodeServers,
        store: Store,
        preparation: JobPreparation,
        changes: Changes,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._preparation = preparation
        self._changes = changes
        self._clock = clock

    async def board(self, worker: Worker, settings: Sequence[Setting]) -> Worker:
        """Return a server's worker with its place in a pack whose options are these.

        The order is written before the worker is in the store: until then, its start is refused.
        """
        options = json.dumps({setting.option: setting.value for setting in settings})
        pack = await self._with_room(options) or await self._new(options, settings)
        await asyncio.to_thread(self._preparation.work.order, pack.key, worker.key)
        return replace(worker, pack_key=pack.key)

    def insert(self, db: Database, worker: Worker) -> None:
        """Add a server's worker as its pack stands now, in the transaction that reads the pack.

        A change of the pack takes along the workers that are there, and no other.
        """
        if workers.insert(db, worker) and worker.pack_key is not None:
            pack = workers.get(db, worker.pack_key)
            self._changes.follow_pack(db, worker.key, pack, source="agent")

    async def _with_room(self, options: str) -> Worker | None:
        now, room = self._clock(), self._settings.packed.servers_per_job

        def look(db: Database) -> Worker | None:
            return next(
                (
                    pack
                    for pack in workers.packs(db)
                    if pack.pack_options == options
                    and has_time(pack, now)
                    and len(workers.in_pack(db, pack.key)) < room
                ),
                None,
            )

        return await self._store.run(look)

    async def _new(self, options: str, settings: Sequence[Setting]) -> Worker:
        plan = plan_pack(self._settings, settings)
        await self._preparation.prepare(plan)
        pack = Worker(
            key=plan.spec.key,
            kind=WorkerKind.PACK,
            phase=Phase.INTENT,
            deployment="",
            location=None,
            created_at=self._clock(),
            pack_options=options,
        )
        await self._store.run(lambda db: workers.insert(db, pack))
        return pack


def plan_pack(servers: CodeServers, settings: Sequence[Setting]) -> JobPlan:
    """Return one more pack, for servers that have these options."""
    spec = NodeSpec(
        key=f"pck-{secrets.token_hex(10)}",
        kind=WorkerKind.PACK,
        argv=[],
        environment={},
        working_directory=None,
        grace_seconds=30,
        idle_seconds=servers.packed.idle_seconds,
    )
    return JobPlan(
        spec=spec, title="Dagster code servers", settings=settings, environment=Environment()
    )


def has_time(pack: Worker, now: float) -> bool:
    """Whether more than half of a pack's time is left: else its servers would soon hand over."""
    if pack.deadline_at is None or pack.started_at is None:
        return True
    return pack.deadline_at - now > (pack.deadline_at - pack.started_at) / 2
