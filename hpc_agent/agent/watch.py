"""The watch loop: one query for all jobs, and evidence before any conclusion.

Absence from the queue starts a search (accounting, the exit record); only a long absence under a
scheduler that answers makes an end of it. A failed query changes nothing, an answer that cannot be
read says nothing of what is absent from it, and one job that cannot be judged stops no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.agent.investigation import Investigation, Seen, name_of
from hpc_agent.agent.unreadable import Unreadable
from hpc_agent.errors import SchedulerError
from hpc_agent.isolation import for_each
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.store import jobs, tracking, workers
from hpc_agent.store.jobs import Job
from hpc_agent.store.tracking import Tracked
from hpc_agent.store.workers import Worker
from hpc_agent.workers import adoption, evidence, intents
from hpc_agent.workers.adoption import Adopted

log = logging.getLogger(__name__)

_FAST_SECONDS = 2.0
_FAST_FOR_SECONDS = 30.0
# A job that leaves does so in a moment; with an Epilog that hangs it takes hours.
_LEAVES_FOR_SECONDS = 60.0
_IDLE_SECONDS = 300.0
_QUIET_SECONDS = 60.0
_LOOK_INTO_QUEUE_AFTER_SECONDS = 1.0
# After a restart all jobs are news; ten thousand rows at once would stay in the process's memory.
_READ_AT_ONCE = 250


class WatchLoop:
    """Keeps the jobs' states true."""

    def __init__(
        self, context: Context, *, heard: Callable[[str], float | None] = lambda _: None
    ) -> None:
        """Take what tells when a worker's job was last heard of through the relay."""
        self._context = context
        self._quiet_looks = 0
        self._tracked: Tracked | None = None
        self._leaving: dict[int, float] = {}
        self._settled: dict[int, JobRecord] = {}
        self._strangers: dict[str, JobRecord] = {}
        self._unreadable = Unreadable(context.store)
        self._investigation = Investigation(context, self._unreadable, heard)
        self._absences = self._investigation.absences

    async def step(self) -> float:
        """Look at all submitted jobs once."""
        context, earlier = self._context, self._tracked
        tracked = await self._track()
        if not tracked:
            return _IDLE_SECONDS
        try:
            look = await context.scheduler.queue()
        except SchedulerError:
            self._absences.pause()
            raise
        await self._unreadable.note("squeue", look)
        records = {record.job_id: record for record in look.records}
        absent = await self._observe_news(tracked, records)
        await self._adopt(look.records)
        # The state of a server in a pack follows the pack's; that it has ended alone, it may fail
        # to tell.
        await for_each("watch", tracked.in_packs, self._read_packed, name=str)
        if look.is_complete:
            await self._investigation.look_for(absent)
        else:
            self._absences.pause()
        left = await self._track()
        is_quiet = earlier is not None and left.change == earlier.change
        self._quiet_looks = self._quiet_looks + 1 if is_quiet else 0
        return self._next_wait(left)

    async def _track(self) -> Tracked:
        known = self._tracked
        self._tracked = await self._context.store.run(lambda db: tracking.tracked(db, known))
        return self._tracked

    async def _observe_news(self, tracked: Tracked, records: Mapping[str, JobRecord]) -> list[Seen]:
        """Take in what is not as it was at the last look; return what is absent."""
        settled = self._settled
        news = [
            identity
            for job_id, identities in tracked.rows.items()
            for identity in identities
            if job_id not in records or settled.get(identity) is not records[job_id]
        ]
        all_rows = {identity for identities in tracked.rows.values() for identity in identities}
        self._settled = {key: record for key, record in settled.items() if key in all_rows}
        self._absences.keep(all_rows)
        absent: list[Seen] = []
        for first in range(0, len(news), _READ_AT_ONCE):
            seen = await self._read(news[first : first + _READ_AT_ONCE], records)
            absent += [each for each in seen if each.record is None]
            present = [each for each in seen if each.record is not None]
            self._absences.present(each.job.id for each in present)
            failed = await for_each(
                "watch",
                present,
                self._investigation.take_in,
                name=name_of,
                fields=lambda each: each.worker.log_fields,
            )
            unsettled = {each.job.id for each in failed}
            for each in present:
                if each.record is not None and each.job.id not in unsettled:
                    self._settled[each.job.id] = each.record
        return absent

    async def _read(
        self, identities: Sequence[int], records: Mapping[str, JobRecord]
    ) -> list[Seen]:
        def read(db: Database) -> list[tuple[Job, Worker]]:
            found = jobs.with_ids(db, identities)
            keys = list({job.worker_key for job in found})
            by_key = {each.key: each for each in workers.with_keys(db, keys)}
            return [(job, by_key[job.worker_key]) for job in found]

        seen = []
        for job, worker in await self._context.store.run(read):
            record = records.get(job.job_id)
            is_its_own = record is not None and evidence.belongs(record, worker, job)
            seen.append(Seen(worker, job, record if is_its_own else None))
        return seen

    def _next_wait(self, tracked: Tracked) -> float:
        """Look soon after a submission and at an end, when jobs change; slowly otherwise.

        While nothing changes, ever more slowly: jobs tell their own start and end.
        """
        if not tracked:
            return _IDLE_SECONDS
        now = self._context.clock()
        age = now - tracked.youngest
        self._leaving = {job: self._leaving.get(job, now) for job in tracked.leaving}
        is_any_leaving = any(now - at < _LEAVES_FOR_SECONDS for at in self._leaving.values())
        if age < _LOOK_INTO_QUEUE_AFTER_SECONDS:
            return _LOOK_INTO_QUEUE_AFTER_SECONDS
        if is_any_leaving or (tracked.is_any_waiting and age < _FAST_FOR_SECONDS):
            return _FAST_SECONDS
        poll_seconds = self._context.config.scheduler.poll_seconds
        slowed: float = poll_seconds * 2 ** min(self._quiet_looks, 8)
        return min(slowed, max(poll_seconds, _QUIET_SECONDS))

    async def _read_packed(self, key: str) -> None:
        await self._investigation.read_exit_record(key)

    async def _adopt(self, records: Iterable[JobRecord]) -> None:
        """Take in jobs of ours that nobody knows of: of an old request, or of a lost answer."""
        tracked = self._tracked.rows if self._tracked is not None else {}
        unknown = [
            record
            for record in records
            if not record.state.is_final
            and self._strangers.get(record.job_id) is not record
            and not any(
                self._settled.get(identity) is record for identity in tracked.get(record.job_id, ())
            )
        ]
        now = self._context.clock()
        found: list[Adopted] = []
        async for some in self._context.store.in_parts(unknown, adoption.find):
            found += some

        async def take_in(each: Adopted) -> None:
            log.info("%s: job %s is known now", each.worker_key, each.job_id)
            await self._context.changes.apply(
                each.worker_key,
                lambda worker, _: intents.observe_submission(worker, each.job_id, now),
                source="squeue",
            )

        await for_each("adopt", found, take_in, name=lambda each: f"job {each.job_id}")
        adopted = {each.job_id for each in found}
        present = {record.job_id: record for record in unknown if record.job_id not in adopted}
        known = {record.job_id: record for record in records}
        self._strangers = {
            job_id: record
            for job_id, record in (self._strangers | present).items()
            if known.get(job_id) is record
        }
