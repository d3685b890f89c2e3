"""The Scheduler on Slurm's own commands."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hpc_agent.errors import (
    JobNotFoundError,
    SchedulerUnavailableError,
    SchedulerUnreadableError,
)
from hpc_agent.slurm import (
    cli_partitions,
    queue_position,
    sacct,
    sbatch,
    scancel,
    scontrol,
    sinfo,
    squeue,
    usage,
)
from hpc_agent.slurm.commands import NOT_FOUND, CommandResult, CommandRunner, ProcessRunner
from hpc_agent.slurm.diagnosis import Meaning, meaning_of, query_error, submit_error
from hpc_agent.slurm.partition_facts import PartitionFacts
from hpc_agent.slurm.printed import unreadable
from hpc_agent.slurm.rate import LimitedRunner, TokenBucket
from hpc_agent.slurm.said_once import SaidOnce
from hpc_agent.slurm.scheduler import (
    JobRecord,
    Look,
    NodeInfo,
    PartitionInfo,
    Usage,
    array_id,
    found_in,
    is_called,
)
from hpc_agent.slurm.values import ENVIRONMENT

logger = logging.getLogger(__name__)

# One argument of a command may have 128 KiB (MAX_ARG_STRLEN of Linux), an id up to 20 characters.
_JOBS_PER_SACCT = 5000
_CANCELLED_AT_ONCE = 500


def slurm_on_this_host(
    environment: Mapping[str, str] | None = None,
    *,
    burst: int = 30,
    commands_per_second: float = 2.0,
) -> SlurmCli:
    """Return a scheduler that runs Slurm's commands here, all within one rate limit.

    ``environment`` replaces that of this process; it must have PATH and may have SLURM_CONF.
    """
    return slurm_over(
        ProcessRunner(environment), burst=burst, commands_per_second=commands_per_second
    )


def slurm_over(
    runner: CommandRunner,
    *,
    burst: int = 30,
    commands_per_second: float = 2.0,
    query_timeout_seconds: float = 60.0,
) -> SlurmCli:
    """Return a scheduler whose commands a runner runs, all within one rate limit."""
    bucket = TokenBucket(burst=burst, per_second=commands_per_second)
    return SlurmCli(LimitedRunner(runner, bucket), query_timeout_seconds=query_timeout_seconds)


class SlurmCli:
    """Submits, watches and cancels jobs by sbatch, squeue, sacct, scontrol, scancel and sinfo."""

    def __init__(
        self,
        runner: CommandRunner,
        *,
        query_timeout_seconds: float = 60.0,
        submit_timeout_seconds: float = 150.0,
        accounting_retry_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the deadlines; sbatch's own retries take up to 120 s, so its deadline is longer."""
        self._runner = runner
        self._query_timeout = query_timeout_seconds
        self._submit_timeout = submit_timeout_seconds
        self._accounting_retry = accounting_retry_seconds
        self._clock = clock
        self._no_accounting_until = float("-inf")
        self._max_array_size: int | None = None
        self._hides_jobs: bool | None = None
        self._queue = squeue.Reader()
        self._said = SaidOnce()

    @property
    def name(self) -> str:
        """Return ``slurm``."""
        return "slurm"

    async def version(self) -> str:
        """Return for example ``slurm 24.11.5``."""
        return sinfo.parse_version(await self._query(sinfo.version_arguments()))

    async def submit(
        self, script: Path, *, name: str, comment: str, exclude: Sequence[str] = ()
    ) -> str:
        """Run sbatch once; see Scheduler.submit for the errors."""
        excluded = await self._excluded(script, exclude)
        return await self._sbatch(
            sbatch.arguments(script, name=name, comment=comment, exclude=excluded)
        )

    async def max_array_size(self) -> int:
        """Return what the controller allows; asked once and remembered."""
        if self._max_array_size is None:
            config = await self._query(scontrol.config_arguments())
            self._max_array_size = scontrol.parse_max_array_size(config)
        return self._max_array_size

    async def cli_filters(self) -> str:
        """Return the site's plugins that run inside sbatch, "" without any."""
        return scontrol.parse_cli_filters(await self._query(scontrol.config_arguments()))

    async def submit_array(
        self, script: Path, *, name: str, comment: str, size: int, exclude: Sequence[str] = ()
    ) -> str:
        """Run sbatch once for all tasks; see Scheduler.submit_array."""
        excluded = await self._excluded(script, exclude)
        return await self._sbatch(
            sbatch.arguments(script, name=name, comment=comment, array_size=size, exclude=excluded)
        )

    async def queue(self) -> Look:
        """Return this user's jobs in the controller, also those it has not yet purged."""
        return self._noted("squeue", self._queue.read(await self._query(squeue.arguments())))

    async def positions(self, job_ids: Iterable[str]) -> Mapping[str, queue_position.Position]:
        """Return where waiting jobs are among all users'; asks once whether these are hidden."""
        if self._hides_jobs is None:
            self._hides_jobs = queue_position.are_hidden(
                await self._query(scontrol.config_arguments())
            )
        if self._hides_jobs:
            return {}
        return queue_position.parse(await self._query(queue_position.arguments()), job_ids)

    async def history(self, job_ids: Iterable[str], *, since: datetime) -> Look:
        """Return accounting records; none on a cluster without accounting, which is remembered.

        Tasks are asked for by their array: sacct knows those that were cancelled in the queue by
        no id of their own (22.05: a record ``17_[3-9]``, which ``--jobs=17_3`` does not select).
        """
        wanted = set(job_ids)
        ids = sorted({array_id(job_id) for job_id in wanted})
        look = Look()
        for first in range(0, len(ids), _JOBS_PER_SACCT):
            look += await self._accounting(ids[first : first + _JOBS_PER_SACCT], since)
        return look.only(lambda job: job.job_id in wanted)

    async def usage(self, job_ids: Iterable[str], *, since: datetime) -> Mapping[str, Usage]:
        """Return what jobs have used, by one sacct that lists their steps as well."""
        ids = list(job_ids)
        used: dict[str, Usage] = {}
        for first in range(0, len(ids), _JOBS_PER_SACCT):
            part = ids[first : first + _JOBS_PER_SACCT]
            stdout = await self._sacct(usage.arguments(part, since=since))
            used |= {} if stdout is None else usage.parse(stdout)
        return used

    async def show(self, job_id: str) -> JobRecord:
        """Return one job by scontrol."""
        shown = await self._query(scontrol.show_arguments(job_id))
        record = scontrol.parse_job(shown)
        if record is None:
            raise unreadable("scontrol", shown)
        # A task that waits may be shown as all that wait with it (ArrayTaskId=3-9).
        return replace(record, job_id=job_id)

    async def find(self, key: str, *, since: datetime) -> Look:
        """Return the jobs that are called so, of the queue and of accounting."""
        queued = (await self.queue()).only(lambda job: is_called(job, key))
        try:
            accounted = await self._accounting(None, since)
        except SchedulerUnavailableError as error:
            return found_in(queued, error)
        return found_in(queued, accounted.only(lambda job: is_called(job, key)))

    async def cancel(self, job_id: str, *, name: str | None = None) -> None:
        """Run scancel; a job that is unknown or has ended needs none.

        Whose name a task of an array has, squeue says first: see scancel.cancel_arguments.
        """
        if name is not None and array_id(job_id) != job_id:
            if not await self._has_name(job_id, name):
                return
            name = None
        await self._order(
            scancel.cancel_arguments(job_id, name=name), job_id, missing_is_error=False
        )

    async def cancel_all(self, names: Mapping[str, str]) -> None:
        """Ask squeue once whose names the jobs have, and run scancel once for a few hundred."""
        look = await self.queue()
        found = {job.job_id: job.name for job in look.records}
        if not look.is_complete and names.keys() - found.keys():
            raise SchedulerUnreadableError(
                "squeue prints lines that cannot be read, which may be those of jobs to be ended"
            )
        mine = [job_id for job_id, name in names.items() if found.get(job_id) == name]
        for first in range(0, len(mine), _CANCELLED_AT_ONCE):
            some = mine[first : first + _CANCELLED_AT_ONCE]
            argv = scancel.cancel_all_arguments(some)
            await self._order(argv, ", ".join(some), missing_is_error=False)

    async def signal(self, job_id: str, signal: str) -> None:
        """Signal the batch script. Raises JobNotFoundError when the controller knows no job."""
        await self._order(scancel.signal_arguments(job_id, signal), job_id, missing_is_error=True)

    async def partitions(self) -> Sequence[PartitionInfo]:
        """Return the partitions by sinfo."""
        return sinfo.parse_partitions(await self._query(sinfo.partition_arguments()))

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes by sinfo."""
        return sinfo.parse_nodes(await self._query(sinfo.node_arguments()))

    async def partition_facts(self) -> PartitionFacts:
        """Return what decides which partition takes a job, by four commands at most."""
        return await cli_partitions.gather(self._query)

    async def healthy(self) -> bool:
        """Whether a controller answers; no answer is False, not an error.

        Raises SchedulerUnreadableError for an answer that is neither yes nor no.
        """
        result = await self._run(scontrol.ping_arguments(), self._query_timeout)
        try:
            return scontrol.is_up(result.stdout)
        except SchedulerUnreadableError:
            if result.succeeded:
                raise
            return False

    async def _sbatch(self, argv: list[str]) -> str:
        # As it is here: sbatch hands SLURM_TIME_FORMAT on to the job, and reads --begin by TZ.
        result = await self._runner.run(argv, environment={}, timeout_seconds=self._submit_timeout)
        job_id = sbatch.parse(result.stdout) if result.succeeded else None
        if job_id is None:
            raise submit_error(result)
        return job_id

    async def _excluded(self, script: Path, exclude: Sequence[str]) -> str | None:
        """Return all nodes that a job is not to use; the script's own are read where sbatch is."""
        if not exclude:
            return None
        shown = await self._run(["cat", "--", str(script)], self._query_timeout)
        if not shown.succeeded and (shown.returncode is None or shown.returncode < 0):
            raise query_error(shown)
        excluded = sbatch.merged_exclude(shown.stdout, exclude)
        if excluded is None:
            logger.warning("%s excludes nodes by a file: %s are not", script, ",".join(exclude))
        return excluded

    async def _has_name(self, job_id: str, name: str) -> bool:
        """Whether the controller has a job under this name. Raises when it does not tell."""
        try:
            stdout = await self._query(squeue.arguments(job_id))
        except JobNotFoundError:
            return False
        look = self._noted("squeue", squeue.parse(stdout)).only(lambda job: job.job_id == job_id)
        if not look.records and not look.is_complete:
            raise unreadable("squeue", stdout)
        return any(job.name == name for job in look.records)

    async def _accounting(self, job_ids: list[str] | None, since: datetime) -> Look:
        stdout = await self._sacct(sacct.arguments(job_ids, since=since))
        return Look() if stdout is None else self._noted("sacct", sacct.parse(stdout))

    def _noted(self, command: str, look: Look) -> Look:
        self._said.noise(command, look.noise)
        self._said.unreadable(command, look.unreadable)
        return look

    async def _sacct(self, argv: list[str]) -> str | None:
        """Return what sacct prints, None on a cluster without accounting."""
        if self._clock() < self._no_accounting_until:
            return None
        result = await self._run(argv, self._query_timeout)
        if _has_no_accounting(result):
            logger.info(
                "no accounting records on this cluster (%s); asking again in %.0f s",
                result.describe(),
                self._accounting_retry,
            )
            self._no_accounting_until = self._clock() + self._accounting_retry
            return None
        if not result.succeeded or meaning_of(result.stderr) is Meaning.UNAVAILABLE:
            raise query_error(result)
        return result.stdout

    async def _order(self, argv: list[str], job_id: str, *, missing_is_error: bool) -> None:
        result = await self._run(argv, self._query_timeout)
        meaning = meaning_of(result.stderr)
        if result.succeeded or meaning is Meaning.JOB_ENDED:
            return
        if meaning is Meaning.JOB_UNKNOWN and not missing_is_error:
            logger.debug("%s: the controller does not know job %s", argv[0], job_id)
            return
        raise query_error(result)

    async def _query(self, argv: Sequence[str]) -> str:
        result = await self._run(argv, self._query_timeout)
        if not result.succeeded:
            raise query_error(result)
        return result.stdout

    async def _run(self, argv: Sequence[str], timeout_seconds: float) -> CommandResult:
        return await self._runner.run(
            argv, environment=ENVIRONMENT, timeout_seconds=timeout_seconds
        )


def _has_no_accounting(result: CommandResult) -> bool:
    return result.returncode == NOT_FOUND or meaning_of(result.stderr) is Meaning.NO_ACCOUNTING
