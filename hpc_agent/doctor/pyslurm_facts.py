"""Facts about pyslurm, by starting it as the agent would."""

from __future__ import annotations

from hpc_agent.cluster.transports import pyslurm_process
from hpc_agent.config import AgentConfig
from hpc_agent.doctor.facts import ControllerFacts, PyslurmFacts, Unknown
from hpc_agent.errors import SchedulerError
from hpc_agent.slurm.cli import SlurmCli
from hpc_agent.slurm.commands import CommandRunner


async def gather_pyslurm(
    config: AgentConfig, runner: CommandRunner, controller: ControllerFacts | Unknown
) -> PyslurmFacts | Unknown:
    """Import pyslurm in a process of its own, where the transport is pyslurm."""
    if config.scheduler.transport != "pyslurm":
        return Unknown("scheduler.transport is not pyslurm")
    if isinstance(controller, Unknown):
        return controller
    if controller.error is not None:
        return Unknown("Slurm does not answer")
    slurm = SlurmCli(runner)
    process = pyslurm_process(config, slurm)
    try:
        return PyslurmFacts(
            python=process.python,
            release=await process.start(),
            cli_filters=await slurm.cli_filters(),
        )
    except SchedulerError as error:
        return PyslurmFacts(python=process.python, release="", error=str(error))
    finally:
        await process.close()
