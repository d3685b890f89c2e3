"""The scheduler that agent.yaml asks for."""

from __future__ import annotations

import os

from hpc_agent.agent.login_node import ClusterAndLoginNode
from hpc_agent.config import AgentConfig
from hpc_agent.slurm.cli import slurm_on_this_host
from hpc_agent.slurm.local import LocalScheduler
from hpc_agent.slurm.scheduler import Scheduler

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
    return slurm_on_this_host(
        slurm_environment(config),
        burst=settings.commands_burst,
        commands_per_second=settings.commands_per_second,
    )


def slurm_environment(config: AgentConfig) -> dict[str, str]:
    """Return the environment in which Slurm's commands are found, and find their cluster."""
    settings, environment = config.scheduler, dict(os.environ)
    if settings.slurm_conf:
        environment["SLURM_CONF"] = str(settings.slurm_conf)
    if settings.bin_dir:
        environment["PATH"] = f"{settings.bin_dir}{os.pathsep}{environment.get('PATH', '')}"
    return environment
