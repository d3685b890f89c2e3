"""Facts about Slurm, by its own commands."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from hpc_agent.cluster.cluster import Cluster
from hpc_agent.config import AgentConfig
from hpc_agent.doctor.facts import ControllerFacts, SlurmFacts, Unknown
from hpc_agent.doctor.probe_plan import Kind, kinds_of_jobs, values_of
from hpc_agent.errors import SchedulerError, TemplateError
from hpc_agent.files import Files
from hpc_agent.jobs.directory import SCRIPT
from hpc_agent.jobs.rendering import Templates
from hpc_agent.slurm.commands import CommandResult, CommandRunner
from hpc_agent.slurm.scheduler import Scheduler

_DEADLINE_SECONDS = 60.0
_SETTING = re.compile(r"^(\w+)\s*= (.*)$", re.MULTILINE)
_CLUSTER = re.compile(r"^([^|\s]+)\|\d*$", re.MULTILINE)
_LIMITS = ("MaxSubmitJobs", "GrpSubmitJobs", "MaxJobs", "GrpJobs")


async def gather_controller(config: AgentConfig, scheduler: Scheduler) -> ControllerFacts | Unknown:
    """Ask for the version and whether the controller is up."""
    if config.scheduler.kind != "slurm":
        return Unknown("scheduler.kind is not slurm")
    try:
        version = await scheduler.version()
        error = None if await scheduler.healthy() else "no slurmctld answers (scontrol ping)"
    except SchedulerError as refusal:
        return ControllerFacts(version="", error=str(refusal))
    return ControllerFacts(version=version, error=error)


async def gather_slurm(
    config: AgentConfig, cluster: Cluster, controller: ControllerFacts | Unknown
) -> SlurmFacts | Unknown:
    """Ask for configuration, partitions, accounting and limits."""
    if isinstance(controller, Unknown):
        return controller
    if controller.error is not None:
        return Unknown("Slurm does not answer")
    if config.scheduler.transport == "rest":
        return Unknown("transport rest has none of Slurm's commands, which this check needs")
    try:
        return await _gather(config, cluster)
    except SchedulerError as error:
        return Unknown(str(error))


async def _gather(config: AgentConfig, cluster: Cluster) -> SlurmFacts:
    scheduler, runner = cluster.scheduler, cluster.runner
    shown = await _run(runner, "scontrol", "show", "config")
    accounting = await _run(runner, "sacct", "--noheader", "--allocations", "--starttime=now")
    return SlurmFacts(
        settings=parse_settings(shown.stdout),
        partitions=await scheduler.partitions(),
        nodes=await scheduler.nodes(),
        accounting_error=None if accounting.succeeded else accounting.describe(),
        clusters=await _clusters(runner) if accounting.succeeded else (),
        submit_limits=await _submit_limits(runner) if accounting.succeeded else {},
        refused={
            kind.name: await _refusal(config, cluster, kind) for kind in kinds_of_jobs(config)
        },
    )


def parse_settings(stdout: str) -> dict[str, str]:
    """Read ``scontrol show config``, cgroup.conf's part included."""
    return {name: value.strip() for name, value in _SETTING.findall(stdout)}


def parse_submit_limits(stdout: str) -> dict[str, int]:
    """Read ``sacctmgr show assoc`` of account and limits: the lowest of each account."""
    limits: dict[str, int] = {}
    for line in stdout.splitlines():
        account, *values = line.split("|")
        for limit, value in zip(_LIMITS, values, strict=False):
            if value.isdigit():
                name = f"{limit} of {account}"
                limits[name] = min(int(value), limits.get(name, int(value)))
    return limits


async def _clusters(runner: CommandRunner) -> Sequence[str]:
    # Two columns, so that a line of somebody else's is no cluster.
    shown = await _run(runner, "sacctmgr", "-nP", "show", "cluster", "format=cluster,controlport")
    return _CLUSTER.findall(shown.stdout)


async def _submit_limits(runner: CommandRunner) -> dict[str, int]:
    # Over SSH it may be another user than here.
    user = await _run(runner, "id", "-un")
    columns = ",".join(("account", *_LIMITS))
    shown = await _run(
        runner,
        "sacctmgr",
        "-nP",
        "show",
        "assoc",
        "where",
        f"user={user.stdout.strip().rpartition(chr(10))[2]}",
        f"format={columns}",
    )
    return parse_submit_limits(shown.stdout) if shown.succeeded else {}


async def _refusal(config: AgentConfig, cluster: Cluster, kind: Kind) -> str | None:
    """Say what is wrong with a kind of job; sbatch reads the script that would be submitted."""
    if kind.plan is None:
        return kind.error
    try:
        script = Templates(config.templates_dir).render(*values_of(config, kind.plan))
        async with _in_work_dir(config, cluster.files, script) as file:
            asked = await _run(cluster.runner, "sbatch", "--test-only", "--export=NIL", str(file))
    except (TemplateError, OSError) as error:
        return str(error)
    return None if asked.succeeded else asked.describe()


@asynccontextmanager
async def _in_work_dir(config: AgentConfig, files: Files, script: str) -> AsyncIterator[Path]:
    """Yield a script where a machine that is reached by SSH sees it too, while it is read."""
    directory = config.work_dir / "probes" / secrets.token_hex(8)
    file = directory / SCRIPT
    try:
        await asyncio.to_thread(files.make_directory, directory)
        await asyncio.to_thread(files.write, file, script)
        yield file
    finally:
        await asyncio.to_thread(files.remove_tree, directory)


async def _run(runner: CommandRunner, *argv: str) -> CommandResult:
    return await runner.run(argv, environment={}, timeout_seconds=_DEADLINE_SECONDS)
