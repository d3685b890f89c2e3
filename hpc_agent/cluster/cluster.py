"""The cluster that agent.yaml names, from its opening to its closing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from hpc_agent.account import Account
from hpc_agent.cluster.transports import open_runner, open_scheduler, ssh_target
from hpc_agent.config import AgentConfig
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.files import Files, LocalFiles
from hpc_agent.slurm.commands import CommandRunner
from hpc_agent.slurm.observation import OnCall, nobody
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.slurm.ssh import SshRunner
from hpc_agent.slurm.ssh_files import SftpFiles
from hpc_agent.slurm.ssh_shared import SharedConnection

_ACCOUNT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where jobs run: who starts them, where their files are, and as whom they run.

    ``login_node`` is the connection that the relay's port goes through, None where jobs reach this
    machine themselves.
    """

    scheduler: Scheduler
    runner: CommandRunner
    files: Files
    account: Account
    login_node: SharedConnection | None = None


@asynccontextmanager
async def open_cluster(config: AgentConfig, on_call: OnCall = nobody) -> AsyncIterator[Cluster]:
    """Yield the cluster; ``on_call`` is told of each call of Slurm.

    Raises SchedulerUnavailableError when it cannot be reached by SSH.
    """
    async with (
        open_runner(config) as runner,
        open_scheduler(config, runner, on_call) as scheduler,
    ):
        ssh = config.scheduler.ssh
        if ssh is None or not isinstance(runner, SshRunner):
            yield Cluster(
                scheduler=scheduler, runner=runner, files=LocalFiles(), account=Account.here()
            )
            return
        yield Cluster(
            scheduler=scheduler,
            runner=runner,
            files=SftpFiles(runner.shared) if ssh.files == "sftp" else LocalFiles(),
            account=await _account(runner),
            login_node=runner.shared if ssh.relay == "forwarded" else None,
        )


@contextmanager
def files_of(config: AgentConfig) -> Iterator[Files]:
    """Yield the files of the cluster alone, for somebody who only reads."""
    ssh = config.scheduler.ssh
    if ssh is None or not config.has_files_elsewhere:
        yield LocalFiles()
        return
    shared = SharedConnection(ssh_target(config, ssh))
    try:
        yield SftpFiles(shared)
    finally:
        shared.close()


async def _account(runner: CommandRunner) -> Account:
    argv = ["sh", "-c", 'getent passwd "$(id -u)"']
    result = await runner.run(argv, environment={}, timeout_seconds=_ACCOUNT_SECONDS)
    if not result.succeeded:
        raise SchedulerUnavailableError(result.stderr.strip() or result.describe())
    return Account.parse(result.stdout)
