"""What is to be concluded of one job: its claim and exit record, accounting, and its absence.

Evidence comes before any conclusion. Where nobody can say how a job stands now, an error is raised
and nothing concluded: the next look tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hpc_agent.agent.absence import AbsenceClock
from hpc_agent.agent.context import Context
from hpc_agent.agent.unreadable import Unreadable
from hpc_agent.errors import SchedulerError, SchedulerUnavailableError
from hpc_agent.isolation import for_each
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store import workers
from hpc_agent.store.jobs import Job
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import evidence, node_evidence
from hpc_agent.workers.change import NOTHING, Change

log = logging.getLogger(__name__)

# slurmdbd learns of an end late; without its word a cancellation is taken for a person's.
_ACCOUNTING_LAG = timedelta(minutes=2)
# A site without accounting never knows of it.
_UNKNOWN_TO_ACCOUNTING = timedelta(seconds=30)

# From the last request of a job to the report of its end, and some more.
_LAST_WORDS_SECONDS = 60.0

# Of any other end (out of memory, timeout, preemption, …) Slurm knows more than the job did.
_TOLD_BETTER_BY_EXIT_RECORD = frozenset({JobState.COMPLETED, JobState.FAILED})


@dataclass(frozen=True, slots=True)
class Seen:
    """A job with its worker, and what the scheduler says of it now, if anything."""

    worker: Worker
    job: Job
    record: JobRecord | None


class Investigation:
    """Judges jobs one by one; ``absences`` is the clock of those that are not there."""

    def __init__(
        self, context: Context, unreadable: Unreadable, heard: Callable[[str], float | None]
    ) -> None:
        self._context = context
        self._heard = heard
        self._unreadable = unreadable
        self.absences = AbsenceClock(context.clock)

    async def observe(self, worker: Worker, job: Job, record: JobRecord) -> None:
        """Take in what the scheduler says of a job now."""
        if record.state is JobState.UNKNOWN:
            log.warning("job %s: unknown state %r", job.job_id, record.raw_state)
            return
        record = _in_steady_time(record, self._context.clock.ahead())
        if record.state.is_final and not worker.phase.is_final:
            await self._read_claim(worker)
            await self._read_members(worker)
            record = await self._with_canceller(worker, job, record)
            is_told_better = record.state in _TOLD_BETTER_BY_EXIT_RECORD
            if is_told_better and await self.read_exit_record(worker.key, record.restarts):
                pass  # the record still says that the job is over
        now = self._context.clock()
        if (
            not worker.phase.is_final
            and evidence.observe_record(worker, job, record, now) is NOTHING
        ):
            return  # most looks find a job as it was: no transaction for that
        job_row = job.id

        def observe(worker: Worker, own: Sequence[Job]) -> Change:
            mine = next((each for each in own if each.id == job_row), None)
            if mine is None or mine.is_over:
                return NOTHING
            others = any(not each.is_over for each in own if each.id != job_row)
            return evidence.observe_record(worker, mine, record, now, others_live=others)

        await self._context.changes.apply(worker.key, observe, source=record.source)

    async def _with_canceller(self, worker: Worker, job: Job, record: JobRecord) -> JobRecord:
        """Ask accounting who cancelled a job that had a node and did not start: maybe its node.

        Raises SchedulerUnavailableError while accounting does not know of its end.
        """
        if record.cancelled_by is not None or not evidence.may_be_node_fault(worker, record):
            return record
        since = datetime.fromtimestamp(job.submitted_at, UTC) - self._context.clock.ahead()
        look = await self._context.scheduler.history(
            [job.job_id], since=since - timedelta(minutes=5)
        )
        accounted = [each for each in look.records if evidence.belongs(each, worker, job)]
        for each in accounted:
            if each.state is JobState.CANCELLED:
                return replace(record, cancelled_by=each.cancelled_by)
        age = datetime.now(UTC) - (record.end_time or datetime.min.replace(tzinfo=UTC))
        if age < (_ACCOUNTING_LAG if accounted else _UNKNOWN_TO_ACCOUNTING):
            raise SchedulerUnavailableError(
                f"accounting does not know yet who has cancelled job {job.job_id}"
            )
        return record

    async def _read_claim(self, worker: Worker) -> None:
        """Before a job ends its worker: is it the one that holds the claim?"""
        if worker.is_claimed or worker.pack_key is not None:
            return
        claim = await asyncio.to_thread(self._context.preparation.work.claim, worker.key)
        if claim is not None and claim.slurm_job_id:
            await self._context.changes.apply(
                worker.key,
                lambda worker, _: node_evidence.observe_claim(worker, claim.slurm_job_id),
                source="claim",
            )

    async def _read_members(self, worker: Worker) -> None:
        """Before an allocation ends those that live in it: have they told of another end?"""
        if worker.kind is not WorkerKind.POOL:
            return
        members = await self._context.store.run(lambda db: workers.in_pack(db, worker.key))
        await for_each("watch", [member.key for member in members], self._read_member, name=str)

    async def _read_member(self, key: str) -> None:
        await self.read_exit_record(key)

    async def read_exit_record(self, key: str, restarts: int = 0) -> bool:
        """Take the node program's own record of the end; True when it ended the worker.

        That of a start before the last of so many ``restarts`` says nothing: a job that Slurm has
        requeued, and could not launch again, still has it.
        """
        record = await asyncio.to_thread(self._context.preparation.work.exit_record, key)
        if record is None or record.restart_count < restarts:
            return False
        now = self._context.clock()
        after = await self._context.changes.apply(
            key,
            lambda worker, _: node_evidence.observe_exit(worker, record, now),
            source="exit record",
        )
        return after.phase.is_final

    async def look_for(self, absent: Sequence[Seen]) -> None:
        """Look for what is absent: at most one more question each to accounting and controller."""
        if not absent:
            return
        found = await self._accounting(absent)
        left = []
        for each in absent:
            record = found.get(each.job.id)
            if record is None:
                left.append(each)
                continue
            accounted = Seen(each.worker, each.job, record)
            await for_each(
                "watch",
                [accounted],
                self._take_in_accounted,
                name=name_of,
                fields=lambda each: each.worker.log_fields,
            )
        failed = await for_each(
            "watch",
            left,
            self._look_for_exit,
            name=name_of,
            fields=lambda each: each.worker.log_fields,
        )
        unsure = {each.job.id for each in failed}
        missing = [each for each in left if each.job.id not in unsure]
        if not missing:
            return
        try:
            is_healthy = await self._context.scheduler.healthy()
        except SchedulerError:
            self.absences.pause()
            raise
        if not is_healthy:
            self.absences.pause()
            return
        await for_each(
            "watch",
            missing,
            self._note_absence,
            name=name_of,
            fields=lambda each: each.worker.log_fields,
        )

    async def _accounting(self, absent: Sequence[Seen]) -> Mapping[int, JobRecord]:
        """Return the final records of absent jobs: others tell nothing of their absence."""
        since = datetime.fromtimestamp(min(each.job.submitted_at for each in absent), UTC)
        try:
            look = await self._context.scheduler.history(
                {each.job.job_id for each in absent},
                since=since - self._context.clock.ahead() - timedelta(minutes=5),
            )
        except SchedulerError as error:
            self.absences.pause()
            await self.absences.tell(
                self._context, [each.worker for each in absent], f"accounting is away: {error}"
            )
            raise
        await self._unreadable.note("sacct", look)
        if not look.is_complete:
            self.absences.pause()
        return {
            each.job.id: record
            for each in absent
            for record in look.records
            if record.state.is_final
            and record.job_id == each.job.job_id
            and evidence.belongs(record, each.worker, each.job)
        }

    async def _take_in_accounted(self, seen: Seen) -> None:
        """Believe accounting of a job that the controller does not know, unless the job is heard.

        Of what a controller has forgotten when it was killed, accounting says that it is cancelled,
        and the job may be at its last words: then it is present, and its own record is waited for.
        """
        if not self._may_be_forgotten(seen):
            await self.take_in(seen)
            return
        key = seen.worker.key
        ended = await asyncio.to_thread(self._context.preparation.work.exit_record, key)
        if ended is None:
            self.absences.present([seen.job.id])
            return
        if ended.exit_code == 0:
            await self.read_exit_record(key)
        await self.take_in(seen)

    def _may_be_forgotten(self, seen: Seen) -> bool:
        silence, worker, record = self._silence(seen), seen.worker, seen.record
        return (
            record is not None
            and record.state is JobState.CANCELLED
            and worker.terminate_at is None
            and worker.state is not JobState.COMPLETING  # it has told its end
            and silence is not None
            and silence < _LAST_WORDS_SECONDS
        )

    def _silence(self, seen: Seen) -> float | None:
        """Return the seconds since the job that counts was heard of, None for any other."""
        worker = seen.worker
        is_current = worker.job is not None and worker.job.id == seen.job.id
        heard = self._heard(worker.key) if is_current and not worker.phase.is_final else None
        return None if heard is None else self._context.clock() - heard

    async def _look_for_exit(self, each: Seen) -> None:
        await self._read_claim(each.worker)
        await self._read_members(each.worker)
        await self.read_exit_record(each.worker.key)

    async def _note_absence(self, each: Seen) -> None:
        now = self._context.clock()
        limit = self._context.config.scheduler.lost_after_seconds
        silence = self._silence(each)
        if silence is not None and silence < limit:
            # It lives, whatever the controller knows: one that was killed may have forgotten it.
            self.absences.present([each.job.id])
            return
        seconds, job_row = self.absences.seconds(each.job.id), each.job.id

        def observe(worker: Worker, own: Sequence[Job]) -> Change:
            mine = next((job for job in own if job.id == job_row), None)
            if mine is None or mine.is_over:
                return NOTHING
            others = any(not job.is_over for job in own if job.id != job_row)
            return evidence.absence(
                worker, mine, now, seconds=seconds, lost_after_seconds=limit, others_live=others
            )

        await self._context.changes.apply(each.worker.key, observe, source="absence")

    async def take_in(self, seen: Seen) -> None:
        """Take in a job with its record, if it has one."""
        if seen.record is not None:
            await self.observe(seen.worker, seen.job, seen.record)


def name_of(seen: Seen) -> str:
    """Return how a job is called in the log."""
    return f"job {seen.job.job_id}"


def _in_steady_time(record: JobRecord, ahead: timedelta) -> JobRecord:
    """Return a record with its times by the clock that waits are measured by.

    The submit time is left: it is a name, and compared with nothing but itself.
    """
    if not ahead:
        return record
    return replace(
        record,
        start_time=record.start_time and record.start_time + ahead,
        end_time=record.end_time and record.end_time + ahead,
        expected_start=record.expected_start and record.expected_start + ahead,
    )
