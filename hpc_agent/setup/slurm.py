"""The Slurm of a login node: partitions, accounts, QOS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_agent.account import Account
from hpc_agent.errors import SchedulerError
from hpc_agent.slurm import associations
from hpc_agent.slurm.cli import SlurmCli
from hpc_agent.slurm.commands import CommandRunner
from hpc_agent.slurm.scheduler import PartitionInfo

_DEADLINE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSlurm:
    """What Slurm's commands say; with an ``error`` nothing else is known."""

    version: str = ""
    partitions: Sequence[PartitionInfo] = ()
    accounts: Sequence[str] = ()
    qos: Sequence[str] = ()
    error: str | None = None

    @property
    def default_partition(self) -> str | None:
        """The one that jobs go to when nobody names one."""
        return next((each.name for each in self.partitions if each.is_default), None)


async def find_slurm(runner: CommandRunner) -> FoundSlurm:
    """Ask Slurm's commands as they are found on PATH."""
    slurm = SlurmCli(runner, query_timeout_seconds=_DEADLINE_SECONDS)
    try:
        version = await slurm.version()
        if not await slurm.healthy():
            return FoundSlurm(version=version, error="no slurmctld answers (scontrol ping)")
        partitions = await slurm.partitions()
    except SchedulerError as error:
        return FoundSlurm(error=str(error).splitlines()[-1])
    user = Account.here().name
    answers = [
        await runner.run(argv, environment={}, timeout_seconds=_DEADLINE_SECONDS)
        for argv in (associations.arguments(user), associations.default_arguments(user))
    ]
    # Without slurmdbd nothing is charged to anybody.
    texts = [answer.stdout if answer.succeeded else "" for answer in answers]
    found = associations.parse(*texts)
    return FoundSlurm(
        version=version,
        partitions=[each for each in partitions if each.available],
        accounts=found.accounts,
        qos=found.qos,
    )
