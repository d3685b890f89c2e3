"""Applies changes to workers and their jobs: the store, the run's log and answers, in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.dagster_plus import responses
from hpc_agent.journal.about import about
from hpc_agent.metrics.meter import SILENT, Meter
from hpc_agent.slurm.state import JobState
from hpc_agent.store import jobs, node_faults, pools, workers
from hpc_agent.store.database import Store
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import answers, evidence, run_log
from hpc_agent.workers.change import NOTHING, Change
from hpc_agent.workers.measurement import measure

Observe = Callable[[Worker, Sequence[Job]], Change]
"""Gets a worker and its own jobs as they are then: between an observation and its effect, another
one may have ended them."""

# So that an array of a thousand does not keep the store from all others for long.
_WORKERS_PER_TRANSACTION = 40
_NODE_FAULTS = frozenset({JobState.NODE_FAIL, JobState.BOOT_FAIL, JobState.LAUNCH_FAILED})
_NOT_SUBMITTED = frozenset({Phase.INTENT, Phase.SUBMITTING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a run's log and tags say of who runs it."""

    scheduler: str
    agent_id: str
    agent_label: str | None


class Changes:
    """Changes workers, and tells whoever it concerns in the same transaction."""

    def __init__(
        self,
        store: Store,
        signature: Signature,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        meter: Meter = SILENT,
    ) -> None:
        """Take two clocks: waits are measured by ``clock``, ``wall`` tells the time of day."""
        self._store = store
        self._signature = signature
        self._clock = clock
        self._wall = wall
        self._meter = meter

    async def apply(self, key: str, observe: Observe, *, source: str) -> Worker:
        """Change one worker. Raises KeyError when there is none."""
        (worker,) = await self.apply_to_all([key], observe, source=source)
        return worker

    async def apply_to_all(
        self, keys: Sequence[str], observe: Observe, *, source: str
    ) -> list[Worker]:
        """Change many workers as ``apply`` does one, in a few transactions."""
        changed: list[Worker] = []
        for first in range(0, len(keys), _WORKERS_PER_TRANSACTION):
            some = keys[first : first + _WORKERS_PER_TRANSACTION]
            changed += await self._store.run(
                lambda db, some=some: [  # type: ignore[misc]
                    self.within(db, key, observe, source=source) for key in some
                ]
            )
        return changed

    def within(self, db: Database, key: str, observe: Observe, *, source: str) -> Worker:
        """Change a worker as part of a transaction."""
        before = workers.get(db, key)
        with about(before.log_fields):
            change = observe(before, jobs.of_worker(db, key))
            return before if change is NOTHING else self._make(db, before, change, source)

    def _make(self, db: Database, before: Worker, change: Change, source: str) -> Worker:
        now = self._clock()
        if change.job_id is not None:
            self._change_job(db, before, change, now)
        if change.phase is not None or change.worker:
            after = workers.change_from(
                db, before, now=now, source=source, phase=change.phase, **dict(change.worker)
            )
        else:
            after = workers.note(db, before, now=now, source=source)
        if after.kind.is_host:
            self._take_along(db, after, source)
        if after.kind is WorkerKind.RUN_WORKER:
            self._tell(db, before, after, self._wall())
        _judge_node(db, before, after, self._wall())
        measure(self._meter, before, after)
        return after

    def _change_job(self, db: Database, worker: Worker, change: Change, now: float) -> None:
        job_id = str(change.job_id)
        allocation = pools.with_job(db, job_id) if worker.kind.is_of_run else None
        if allocation is not None:
            # The job is an allocation's: it is none of the worker's own, which lives in it.
            pools.board(
                db,
                worker.key,
                allocation,
                is_claimed=change.is_claim or worker.is_claimed,
            )
            return
        job = jobs.live_of(db, worker.key, job_id)
        if job is None and change.phase is Phase.ENDED and worker.job_id == job_id:
            job = worker.job
        if job is None:
            job = jobs.insert(db, worker.key, job_id, now=worker.submitting_since or now)
        if change.job:
            job = jobs.change(db, job.id, **dict(change.job))
        if change.is_current or change.is_claim:
            is_claimed = change.is_claim or (worker.is_claimed and worker.job_id == job_id)
            workers.set_current(db, worker.key, job, is_claimed=is_claimed)

    def _take_along(self, db: Database, pack: Worker, source: str) -> None:
        """Those that live in a job follow the one whose job it is."""
        for each in workers.in_pack(db, pack.key):
            if pack.kind is WorkerKind.PACK:
                self.follow_pack(db, each.key, pack, source=source)
            else:
                self._follow_allocation(db, each.key, pack, source=source)

    def _follow_allocation(
        self, db: Database, key: str, allocation: Worker, *, source: str
    ) -> None:
        now = self._clock()
        self.within(
            db,
            key,
            lambda member, _: evidence.observe_allocation(member, allocation, now),
            source=source,
        )

    def follow_pack(self, db: Database, key: str, pack: Worker, *, source: str) -> None:
        """Bring a server to where its pack is."""
        now = self._clock()
        if pack.job is not None:
            workers.share_job(db, key, pack.job)
        before = workers.get(db, key)
        change = evidence.observe_pack(before, pack, now)
        if change is not NOTHING:
            after = workers.change_from(
                db, before, now=now, source=source, phase=change.phase, **dict(change.worker)
            )
            measure(self._meter, before, after)

    def _tell(self, db: Database, before: Worker, after: Worker, now: float) -> None:
        if before.phase in _NOT_SUBMITTED and after.job is not None and _is_submitted(after):
            signature = self._signature
            run_log.submitted(
                db,
                after,
                scheduler=signature.scheduler.capitalize(),
                agent_id=signature.agent_id,
                agent_label=signature.agent_label,
                now=now,
            )
            answers.give(db, after.request_id, responses.success(), now=now)
        if after.phase.is_final and not before.phase.is_final:
            run_log.ended(db, after, now=now)
        elif not after.phase.is_final:
            run_log.changed(db, before, after, now=now)


def _judge_node(db: Database, before: Worker, after: Worker, now: float) -> None:
    """A node on which a job starts is a good one; one that ends jobs by itself may not be."""
    node = after.nodes
    if not node or "[" in node or "," in node:
        return
    if after.is_claimed and not before.is_claimed:
        node_faults.clear(db, node)
    elif after.outcome in _NODE_FAULTS and before.outcome is None and after.pack_key is None:
        node_faults.note(db, node, f"job {after.job_id}: {after.state.value}", now)


def _is_submitted(worker: Worker) -> bool:
    return worker.phase.is_submitted or worker.phase is Phase.ENDED
