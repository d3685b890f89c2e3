"""The scheduler that agent.yaml asks for, and what runs its commands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hpc_agent.cluster.login_node import ClusterAndLoginNode
from hpc_agent.config import AgentConfig
from hpc_agent.config.jobs import Rest, Ssh
from hpc_agent.slurm.cli import SlurmCli
from hpc_agent.slurm.commands import CommandRunner, ProcessRunner
from hpc_agent.slurm.local import LocalScheduler
from hpc_agent.slurm.observation import ObservedRunner, OnCall, nobody
from hpc_agent.slurm.pyslurm_process import PyslurmProcess
from hpc_agent.slurm.pyslurm_transport import PyslurmScheduler
from hpc_agent.slurm.rate import LimitedRunner, TokenBucket
from hpc_agent.slurm.rest import SlurmRest, slurm_by_rest
from hpc_agent.slurm.rest_client import Target
from hpc_agent.slurm.rest_token import CommandToken, FileToken, Token
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.slurm.ssh import SshRunner
from hpc_agent.slurm.ssh_connection import SshTarget
from hpc_agent.slurm.ssh_shared import SharedConnection

# Processes of the login node are limited in memory, each by itself; their number is the site's.
_LOGIN_SLOTS = 256


@asynccontextmanager
async def open_scheduler(
    config: AgentConfig, runner: CommandRunner, on_call: OnCall = nobody
) -> AsyncIterator[Scheduler]:
    """Yield the scheduler; nothing is started or asked yet. Its jobs outlive it."""
    if config.scheduler.kind == "local":
        yield await _local(config, "local-jobs", config.scheduler.local_slots)
        return
    async with _open_slurm(config, runner, on_call) as slurm:
        if config.uses_login_node:
            login = await _local(config, "login-jobs", _LOGIN_SLOTS)
            yield ClusterAndLoginNode(slurm, login)
        else:
            yield slurm


@asynccontextmanager
async def _open_slurm(
    config: AgentConfig, runner: CommandRunner, on_call: OnCall
) -> AsyncIterator[Scheduler]:
    settings = config.scheduler
    if settings.transport == "rest" and settings.rest is not None:
        rest = _slurm_by_rest(config, settings.rest, on_call)
        try:
            yield rest
        finally:
            await rest.close()
        return
    bucket = TokenBucket(burst=settings.commands_burst, per_second=settings.commands_per_second)
    seconds = settings.command_timeout_seconds
    limited = LimitedRunner(ObservedRunner(runner, on_call), bucket)
    slurm = SlurmCli(limited, query_timeout_seconds=seconds)
    if settings.transport != "pyslurm":
        yield slurm
        return
    process = pyslurm_process(config, slurm, on_call)
    try:
        yield PyslurmScheduler(slurm, process, bucket, query_timeout_seconds=seconds)
    finally:
        await process.close()


def _slurm_by_rest(config: AgentConfig, rest: Rest, on_call: OnCall) -> SlurmRest:
    settings = config.scheduler
    return slurm_by_rest(
        Target(url=rest.url, user=rest.user, ca_file=rest.ca_file),
        _token(config, rest),
        burst=settings.commands_burst,
        commands_per_second=settings.commands_per_second,
        query_timeout_seconds=settings.command_timeout_seconds,
        on_call=on_call,
    )


def pyslurm_process(
    config: AgentConfig, slurm: SlurmCli, on_call: OnCall = nobody
) -> PyslurmProcess:
    """Return pyslurm in a process of its own, which is not started yet."""
    pyslurm = config.scheduler.pyslurm
    return PyslurmProcess(
        pyslurm.python if pyslurm is not None else None,
        environment=slurm_environment(config),
        slurm_version=slurm.version,
        on_call=on_call,
    )


@asynccontextmanager
async def open_runner(config: AgentConfig) -> AsyncIterator[CommandRunner]:
    """Yield what runs Slurm's commands: here, or on a machine of the cluster.

    With transport rest there may be no commands anywhere.
    """
    ssh = config.scheduler.ssh
    if config.scheduler.transport != "ssh" or ssh is None:
        yield ProcessRunner(slurm_environment(config))
        return
    runner = SshRunner(SharedConnection(ssh_target(config, ssh)))
    try:
        yield runner
    finally:
        await asyncio.to_thread(runner.close)


def slurm_environment(config: AgentConfig) -> dict[str, str]:
    """Return the environment in which Slurm's commands are found, and find their cluster."""
    settings, environment = config.scheduler, dict(os.environ)
    if settings.slurm_conf:
        environment["SLURM_CONF"] = str(settings.slurm_conf)
    if settings.bin_dir:
        environment["PATH"] = f"{settings.bin_dir}{os.pathsep}{environment.get('PATH', '')}"
    return environment


async def _local(config: AgentConfig, directory: str, slots: int) -> LocalScheduler:
    def make(root: Path) -> LocalScheduler:
        return LocalScheduler(root, slots=slots, grace_seconds=config.runs.grace_seconds)

    return await asyncio.to_thread(make, config.home / directory)


def _token(config: AgentConfig, rest: Rest) -> Token | None:
    if rest.token_file is not None:
        return FileToken(rest.token_file)
    if rest.token_command:
        return CommandToken(rest.token_command, ProcessRunner(slurm_environment(config)))
    return None


def ssh_target(config: AgentConfig, ssh: Ssh) -> SshTarget:
    """Return the machine of the cluster that agent.yaml names."""
    settings = config.scheduler
    return SshTarget(
        host=ssh.host,
        user=ssh.user,
        port=ssh.port,
        key_file=ssh.key_file,
        known_hosts=ssh.known_hosts,
        jump_host=ssh.jump_host,
        path=str(settings.bin_dir) if settings.bin_dir else None,
        environment={"SLURM_CONF": str(settings.slurm_conf)} if settings.slurm_conf else {},
    )
