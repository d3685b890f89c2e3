"""The scheduler that agent.yaml asks for."""

from __future__ import annotations

import os

from hpc_agent.agent.login_node import ClusterAndLoginNode
from hpc_agent.config import AgentConfig
from hpc_agent.slurm.cli import slurm_over
from hpc_agent.slurm.commands import CommandRunner, ProcessRunner
from hpc_agent.slurm.local import LocalScheduler
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.slurm.ssh import SshRunner, SshTarget

# Processes of the login node are limited in memory, each by itself; their number is the site's.
_LOGIN_SLOTS = 256


def make_scheduler(config: AgentConfig) -> Scheduler:
    """Return the scheduler; nothing is started or asked yet."""
    cluster = _cluster(config)
    if config.scheduler.kind == "local" or not config.uses_login_node:
        return cluster
    login = LocalScheduler(
        config.home / "login-jobs", slots=_LOGIN_SLOTS, grace_seconds=config.runs.grace_seconds
    )
    return ClusterAndLoginNode(cluster, login)


def _cluster(config: AgentConfig) -> Scheduler:
    settings = config.scheduler
    if settings.kind == "local":
        return LocalScheduler(
            config.home / "local-jobs",
            slots=settings.local_slots,
            grace_seconds=config.runs.grace_seconds,
        )
    return slurm_over(
        command_runner(config),
        burst=settings.commands_burst,
        commands_per_second=settings.commands_per_second,
    )


def command_runner(config: AgentConfig) -> CommandRunner:
    """Return what runs Slurm's commands: here, or on a machine of the cluster."""
    settings = config.scheduler
    if settings.transport == "cli" or settings.ssh is None:
        return ProcessRunner(slurm_environment(config))
    target = SshTarget(
        host=settings.ssh.host,
        user=settings.ssh.user,
        port=settings.ssh.port,
        key_file=settings.ssh.key_file,
        known_hosts=settings.ssh.known_hosts,
        jump_host=settings.ssh.jump_host,
        path=str(settings.bin_dir) if settings.bin_dir else None,
        environment={"SLURM_CONF": str(settings.slurm_conf)} if settings.slurm_conf else {},
    )
    return SshRunner(target)


def slurm_environment(config: AgentConfig) -> dict[str, str]:
    """Return the environment in which Slurm's commands are found, and find their cluster."""
    settings, environment = config.scheduler, dict(os.environ)
    if settings.slurm_conf:
        environment["SLURM_CONF"] = str(settings.slurm_conf)
    if settings.bin_dir:
        environment["PATH"] = f"{settings.bin_dir}{os.pathsep}{environment.get('PATH', '')}"
    return environment
