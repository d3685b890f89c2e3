"""The search for a job that sbatch may have made: a task beside the submit loop.

sbatch itself retries for up to 120 s (sbatch(1), "Slurm temporarily unable to accept job"), and an
sbatch whose agent was killed goes on alone. So a job is looked for until it could not come any
more, and only under a scheduler that answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from hpc_agent.agent.context import Context
from hpc_agent.errors import HpcAgentError
from hpc_agent.slurm.commands import is_at_work
from hpc_agent.slurm.scheduler import JobRecord, array_id
from hpc_agent.store import submissions
from hpc_agent.store.jobs import Job
from hpc_agent.workers.submission import Outcome, Submission

log = logging.getLogger(__name__)

SEARCH_WINDOW_SECONDS = 150.0
# As long as the agent lets an sbatch be at work. One whose agent was killed may be at work still.
SBATCH_SECONDS = 150.0
# Of an sbatch that is gone, a request may be on its way to the controller at most.
GONE_WINDOW_SECONDS = 30.0
# Words that nobody knows are taken for a refusal when no job came of them so many times.
_REFUSALS_BELIEVED = 2


class Search:
    """Looks for jobs by the keys of their submissions."""

    def __init__(self, context: Context, submission: Submission) -> None:
        self._context = context
        self._submission = submission
        self._ended: dict[str, Outcome] = {}
        self._unknown_words: dict[str, tuple[str, int]] = {}

    def keep(self, unsure: Iterable[str]) -> None:
        """Forget what is known of submissions that are not looked for any more."""
        wanted = set(unsure)
        self._ended = {key: value for key, value in self._ended.items() if key in wanted}

    def doubtful(self, key: str, outcome: Outcome) -> None:
        """Note that a call of sbatch has ended without an answer."""
        self._ended[key] = outcome

    async def run(self, key: str) -> None:
        """Look once; accept what is there, or give back what cannot come any more."""
        context = self._context
        found = await context.store.run(lambda db: submissions.submission(db, key))
        if found is None:
            return
        known = next((job.job_id for job in found.jobs if not job.is_over), None)
        if known is not None:
            # A task that has told of its start is as good as sbatch's answer.
            is_array = found.workers[0].array_key is not None
            job_id = array_id(known) if is_array else known
            await self._submission.accept(found.workers, job_id, source="node")
            return
        since = datetime.fromtimestamp(found.since, UTC) - context.clock.ahead()
        try:
            look = await context.scheduler_of(found.workers[0]).find(
                key, since=since - timedelta(seconds=SBATCH_SECONDS + 60)
            )
        except HpcAgentError as error:
            await self._submission.doubt_on(found.workers, str(error))
            return
        records = [record for record in look.records if not _is_over(record, found.jobs)]
        if records:
            first = min(records, key=lambda record: record.submit_time or datetime.now(UTC))
            is_array = found.workers[0].array_key is not None
            job_id = array_id(first.job_id) if is_array else first.job_id
            await self._submission.accept(found.workers, job_id, source=first.source)
        elif look.is_complete and await self._is_too_late(key, found.since):
            await self._none_came(key, found)

    async def _is_too_late(self, key: str, since: float) -> bool:
        """Whether no job can come any more; should one all the same, the claim makes it one."""
        waited = self._context.clock() - since
        if key in self._ended:
            return waited >= SEARCH_WINDOW_SECONDS
        if waited < GONE_WINDOW_SECONDS:
            return False
        # An agent that died has left it; by SSH nobody here sees whether it is at work.
        is_elsewhere = self._context.config.scheduler.transport == "ssh"
        if is_elsewhere or await asyncio.to_thread(is_at_work, f"--comment={key}"):
            return waited >= SEARCH_WINDOW_SECONDS + SBATCH_SECONDS
        return True

    async def _none_came(self, key: str, found: submissions.Submission) -> None:
        outcome = self._ended.pop(key, None)
        if outcome is not None and outcome.is_unknown and self._is_refusal(found, outcome):
            await self._submission.refuse(found.workers, outcome.words)
            return
        log.info("%s: sbatch made no job; submitting again", key)
        await self._submission.give_back(found.workers, source="search")

    def _is_refusal(self, found: submissions.Submission, outcome: Outcome) -> bool:
        """Whether a wrapper has said the same several times, and no job came of it."""
        likeness = found.workers[0].likeness or found.workers[0].key
        words, times = self._unknown_words.pop(likeness, ("", 0))
        times = times + 1 if words == outcome.words else 1
        self._unknown_words[likeness] = (outcome.words, times)
        while len(self._unknown_words) > 1000:
            del self._unknown_words[next(iter(self._unknown_words))]
        return times >= _REFUSALS_BELIEVED


def _is_over(record: JobRecord, known: Iterable[Job]) -> bool:
    """Whether a record is of an earlier job of the same key, of which nothing more is expected."""
    return any(
        job.is_over
        and job.job_id == record.job_id
        and (
            job.submit_time is None
            or record.submit_time is None
            or record.submit_time.timestamp() == job.submit_time
        )
        for job in known
    )
