"""The Scheduler on pyslurm, where that is better than a command, and on Slurm's commands.

pyslurm submits, shows and cancels plain jobs: 2-3 ms where a command takes 6-10. The rest is the
commands' own, each for a reason found in pyslurm 25.11.2:

* queue: ``Jobs.load`` fetches all jobs of all users; squeue asks for this user's.
* tasks of arrays: ``Job`` takes whole numbers only, waiting tasks share one record, and the task 0
  reads as None.
* exit codes: 128 is taken off those above 127, so that of a job that failed is asked of scontrol.
* signal: ``send_signal`` looks at errno whether or not the call failed, so that its error may be
  none; canceling twice does no harm, a second signal may.
* history, usage, partitions, nodes: rare, and no faster.

What pyslurm refuses to submit goes to sbatch: no job was made, and sbatch also prints what the
site's plugins say about it, which libslurm keeps to itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc_agent.errors import (
    JobNotFoundError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
)
from hpc_agent.slurm.cli import SlurmCli
from hpc_agent.slurm.diagnosis import Meaning, meaning_of
from hpc_agent.slurm.partition_facts import PartitionFacts
from hpc_agent.slurm.pyslurm_options import UnfitError, attributes_of
from hpc_agent.slurm.pyslurm_process import Answer, AnswerLostError, CallError, PyslurmProcess
from hpc_agent.slurm.queue_position import Position
from hpc_agent.slurm.rate import TokenBucket
from hpc_agent.slurm.scheduler import JobRecord, Look, NodeInfo, PartitionInfo, Usage
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import parse_job_id, parse_text

Description = Mapping[str, str | int | bool | list[str]]

logger = logging.getLogger(__name__)

# slurm_errno.h: what slurmctld answers is numbered from here; below are errors of communication.
_FIRST_ANSWER = 2000


class PyslurmScheduler:
    """Submits, shows and cancels by pyslurm, and does all else as SlurmCli does."""

    def __init__(
        self,
        cli: SlurmCli,
        process: PyslurmProcess,
        bucket: TokenBucket,
        *,
        query_timeout_seconds: float = 60.0,
        submit_timeout_seconds: float = 150.0,
    ) -> None:
        """Set pyslurm's deadlines; ``bucket`` is the one that ``cli`` takes its tokens from."""
        self.process = process
        self._cli = cli
        self._bucket = bucket
        self._query_timeout = query_timeout_seconds
        self._submit_timeout = submit_timeout_seconds
        self._cli_filters: str | None = None

    @property
    def name(self) -> str:
        """Return ``slurm``."""
        return "slurm"

    async def close(self) -> None:
        """End pyslurm's process."""
        await self.process.close()

    async def version(self) -> str:
        """Return for example ``slurm 24.11.5``."""
        return await self._cli.version()

    async def submit(
        self, script: Path, *, name: str, comment: str, exclude: Sequence[str] = ()
    ) -> str:
        """Submit by pyslurm, or by sbatch what pyslurm cannot; see Scheduler.submit."""
        own = {"name": name, "comment": comment}
        attributes = None if exclude else await self._attributes(script, own)
        job_id = await self._submit(script, attributes)
        return job_id or await self._cli.submit(script, name=name, comment=comment, exclude=exclude)

    async def max_array_size(self) -> int:
        """Return what the controller allows."""
        return await self._cli.max_array_size()

    async def submit_array(
        self, script: Path, *, name: str, comment: str, size: int, exclude: Sequence[str] = ()
    ) -> str:
        """Submit all tasks at once, like ``submit``."""
        own = {"name": name, "comment": comment, "array": f"0-{size - 1}"}
        attributes = None if exclude else await self._attributes(script, own)
        job_id = await self._submit(script, attributes)
        return job_id or await self._cli.submit_array(
            script, name=name, comment=comment, size=size, exclude=exclude
        )

    async def queue(self) -> Look:
        """Return this user's jobs by squeue."""
        return await self._cli.queue()

    async def history(self, job_ids: Iterable[str], *, since: datetime) -> Look:
        """Return accounting records by sacct."""
        return await self._cli.history(job_ids, since=since)

    async def usage(self, job_ids: Iterable[str], *, since: datetime) -> Mapping[str, Usage]:
        """Return what jobs have used by sacct."""
        return await self._cli.usage(job_ids, since=since)

    async def positions(self, job_ids: Iterable[str]) -> Mapping[str, Position]:
        """Return where waiting jobs are by squeue."""
        return await self._cli.positions(job_ids)

    async def show(self, job_id: str) -> JobRecord:
        """Return one job; a task of an array, or a job that failed, by scontrol."""
        answer = await self._ask("show", job_id)
        if answer is not None and answer.error is None:
            record = read_record(job_id, answer.result)
            if record is not None:
                return record
        elif answer is not None and _means(answer.error, Meaning.JOB_UNKNOWN):
            raise JobNotFoundError(f"pyslurm: no job {job_id} ({_words(answer)})")
        return await self._cli.show(job_id)

    async def find(self, key: str, *, since: datetime) -> Look:
        """Return the jobs that are called so by squeue and sacct."""
        return await self._cli.find(key, since=since)

    async def cancel(self, job_id: str, *, name: str | None = None) -> None:
        """End a job; pyslurm says nothing of one that is unknown or has ended, as is right here.

        scancel is what looks at names.
        """
        answer = await self._ask("cancel", job_id) if name is None else None
        if answer is None or answer.error is not None:
            await self._cli.cancel(job_id, name=name)

    async def cancel_all(self, names: Mapping[str, str]) -> None:
        """End jobs by scancel, which takes many at once."""
        await self._cli.cancel_all(names)

    async def signal(self, job_id: str, signal: str) -> None:
        """Signal the batch script by scancel."""
        await self._cli.signal(job_id, signal)

    async def partitions(self) -> Sequence[PartitionInfo]:
        """Return the partitions by sinfo."""
        return await self._cli.partitions()

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes by sinfo."""
        return await self._cli.nodes()

    async def partition_facts(self) -> PartitionFacts:
        """Return what decides which partition takes a job, by Slurm's commands."""
        return await self._cli.partition_facts()

    async def healthy(self) -> bool:
        """Whether a controller answers ``scontrol ping``."""
        return await self._cli.healthy()

    async def _attributes(self, script: Path, own: Mapping[str, str]) -> Description | None:
        """Return the description of a job, None when only sbatch can submit it."""
        try:
            asked = attributes_of(await asyncio.to_thread(script.read_text))
        except (OSError, UnicodeDecodeError, UnfitError) as reason:
            logger.debug("%s goes to sbatch: %s", script, reason)
            return None
        if await self._filters():
            return None
        path = str(script)
        # /dev/null as sbatch has it; the script is its own first argument, or `scontrol show job`
        # would know no Command.
        return {"standard_in": "/dev/null", **asked, **own, "script": path, "script_args": [path]}

    async def _filters(self) -> str:
        """Return the plugins that act in sbatch: where a site has some, sbatch submits."""
        if self._cli_filters is None:
            self._cli_filters = await self._cli.cli_filters()
            if self._cli_filters:
                logger.warning(
                    "CliFilterPlugins=%s act in sbatch: all jobs are submitted by it",
                    self._cli_filters,
                )
        return self._cli_filters

    async def _submit(self, script: Path, attributes: Description | None) -> str | None:
        """Return the id of a new job; None when none was made and sbatch is to try."""
        if attributes is None:
            return None
        await self._bucket.take()
        try:
            answer = await self.process.call(
                "submit", {"attributes": attributes}, timeout_seconds=self._submit_timeout
            )
        except AnswerLostError as error:
            raise SubmitAmbiguousError(f"{error}; a job may exist") from error
        if answer.error is None:
            job_id = parse_job_id(str(answer.result))
            if job_id is None:
                raise SubmitAmbiguousError(
                    f"pyslurm answered {str(answer.result)[:100]!r}, which is no job id; a job may"
                    " exist",
                    unknown_words=True,
                )
            return job_id
        if may_have_made_a_job(answer.error):
            raise SubmitAmbiguousError(f"pyslurm: {_words(answer)}; a job may exist")
        logger.info("pyslurm did not submit %s (%s): sbatch tries", script, _words(answer))
        return None

    async def _ask(self, call: str, job_id: str) -> Answer | None:
        """Ask about a plain job; None when a command is to be asked, since pyslurm cannot."""
        if not job_id.isdigit():
            return None
        await self._bucket.take()
        try:
            return await self.process.call(
                call, {"job_id": int(job_id)}, timeout_seconds=self._query_timeout
            )
        except SchedulerUnavailableError as error:
            logger.info("a command does what pyslurm cannot: %s", error)
            return None
        except AnswerLostError as error:
            raise SchedulerUnavailableError(str(error)) from error


def may_have_made_a_job(error: CallError) -> bool:
    """Whether a failed submission may have been acted on; only a sure "no" is one."""
    if error.kind != "rpc":
        return error.kind != "unsent"
    if meaning_of(error.message) is Meaning.UNAVAILABLE:
        return False
    return meaning_of(error.message) is Meaning.AMBIGUOUS or (error.errno or 0) < _FIRST_ANSWER


def read_record(job_id: str, values: Mapping[str, Any]) -> JobRecord | None:
    """Read what the helper says of a job; None when scontrol knows better."""
    try:
        return _read_record(job_id, values)
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        logger.info("pyslurm described job %s in a way that cannot be read: %r", job_id, error)
        return None


def _read_record(job_id: str, values: Mapping[str, Any]) -> JobRecord | None:
    """Raise what reading raises, for values that are of other kinds than pyslurm's."""
    state = JobState.parse(values["state"] or "")
    if values["is_array"] or (state.is_final and state is not JobState.COMPLETED):
        return None
    start = _time(values["start_time"])
    minutes = values["time_limit_minutes"]
    return JobRecord(
        job_id=job_id,
        state=state,
        source="pyslurm",
        raw_state=values["state"] or "",
        name=values["name"] or "",
        comment=values["comment"] or "",
        reason=parse_text(values["reason"] or ""),
        partition=values["partition"] or "",
        nodes=values["nodes"] or "",
        exit_code=0 if state.is_final else None,
        signal=None,
        submit_time=_time(values["submit_time"]),
        start_time=None if state.is_waiting else start,
        end_time=_time(values["end_time"]) if state.is_final else None,
        expected_start=start if state.is_waiting else None,
        time_limit_seconds=None if minutes is None else minutes * 60,
        restarts=values["restarts"] or 0,
    )


def _time(seconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _means(error: CallError | None, meaning: Meaning) -> bool:
    return error is not None and error.kind == "rpc" and meaning_of(error.message) is meaning


def _words(answer: Answer) -> str:
    return answer.error.message if answer.error is not None else ""
