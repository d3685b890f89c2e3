"""The scheduler that agent.yaml asks for, from its opening to its closing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hpc_agent.agent.login_node import ClusterAndLoginNode
from hpc_agent.config import AgentConfig
from hpc_agent.config.jobs import Rest, Ssh
from hpc_agent.slurm.cli import slurm_over
from hpc_agent.slurm.commands import CommandRunner, ProcessRunner
from hpc_agent.slurm.local import LocalScheduler
from hpc_agent.slurm.rest import slurm_by_rest
from hpc_agent.slurm.rest_client import Target
from hpc_agent.slurm.rest_token import CommandToken, FileToken, Token
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.slurm.ssh import SshRunner
from hpc_agent.slurm.ssh_connection import SshTarget

# Processes of the login node are limited in memory, each by itself; their number is the site's.
_LOGIN_SLOTS = 256


@asynccontextmanager
async def open_scheduler(config: AgentConfig) -> AsyncIterator[Scheduler]:
    """Yield the scheduler; nothing is started or asked yet. Its jobs outlive it."""
    settings = config.scheduler
    if settings.kind == "local":
        yield await _local(config, "local-jobs", settings.local_slots)
        return
    async with _open_slurm(config) as slurm:
        if config.uses_login_node:
            login = await _local(config, "login-jobs", _LOGIN_SLOTS)
            yield ClusterAndLoginNode(slurm, login)
        else:
            yield slurm


@asynccontextmanager
async def _open_slurm(config: AgentConfig) -> AsyncIterator[Scheduler]:
    settings = config.scheduler
    if settings.transport == "rest" and settings.rest is not None:
        slurm = slurm_by_rest(
            Target(url=settings.rest.url, user=settings.rest.user, ca_file=settings.rest.ca_file),
            _token(config, settings.rest),
            burst=settings.commands_burst,
            commands_per_second=settings.commands_per_second,
            query_timeout_seconds=settings.command_timeout_seconds,
        )
        try:
            yield slurm
        finally:
            await slurm.close()
        return
    async with open_runner(config) as runner:
        yield slurm_over(
            runner,
            burst=settings.commands_burst,
            commands_per_second=settings.commands_per_second,
            query_timeout_seconds=settings.command_timeout_seconds,
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
    runner = SshRunner(_target(config, ssh))
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


def _target(config: AgentConfig, ssh: Ssh) -> SshTarget:
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
