"""The scheduler that agent.yaml asks for."""

from __future__ import annotations

import os

from hpc_agent.config import AgentConfig
from hpc_agent.slurm.cli import slurm_on_this_host
from hpc_agent.slurm.local import LocalScheduler
from hpc_agent.slurm.scheduler import Scheduler


def make_scheduler(config: AgentConfig) -> Scheduler:
    """Return the scheduler; nothing is started or asked yet."""
    settings = config.scheduler
    if settings.kind == "local":
        return LocalScheduler(
            config.home / "local-jobs",
            slots=settings.local_slots,
            grace_seconds=config.runs.grace_seconds,
        )
    environment = dict(os.environ)
    if settings.slurm_conf:
        environment["SLURM_CONF"] = str(settings.slurm_conf)
    if settings.bin_dir:
        environment["PATH"] = f"{settings.bin_dir}{os.pathsep}{environment.get('PATH', '')}"
    return slurm_on_this_host(
        environment,
        burst=settings.commands_burst,
        commands_per_second=settings.commands_per_second,
    )
