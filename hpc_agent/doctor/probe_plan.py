"""The jobs that the agent would submit now, one of each kind: what is asked of Slurm for real."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from hpc_agent.code_servers.packs import plan_pack
from hpc_agent.code_servers.server_plan import new_server_key, plan_server
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.preparation import TEMPLATE_OF, JobPlan, script_values
from hpc_agent.jobs.rendering import ScriptValues
from hpc_agent.pools.allocation import plan_allocation
from hpc_agent.runs.worker_plan import plan_run

_RUN_ID = "00000000-0000-0000-0000-000000000000"
# A location says by itself which Python and image it has; any name does here.
_PYTHON, _IMAGE = "python3", "doctor"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of job: its plan, or why agent.yaml itself does not let it be planned.

    ``interpreter`` is the Python of user code in it, None where locations bring their own.
    """

    name: str
    plan: JobPlan | None
    error: str = ""
    interpreter: str | None = None

    @property
    def partition(self) -> str:
        """The partition it asks for, empty for Slurm's default."""
        settings = self.plan.settings if self.plan else ()
        return next((each.value for each in settings if each.option == "partition"), "")


def kinds_of_jobs(config: AgentConfig) -> list[Kind]:
    """Return a run worker and a code server for each configured location, and for any other.

    Servers that are packed are represented by their pack; those on the login node are no jobs.
    """
    deployment = next(iter(config.control_plane.deployments), "prod")
    kinds = []
    for location in (None, *config.locations):
        name, of = location or "any", f" of {location}" if location else ""
        kinds.append(_kind(f"run worker{of}", partial(_run, config, location, deployment)))
        placement = config.placement_of(name)
        if placement != "login":
            server = _kind(f"code server{of}", partial(_server, config, name, deployment))
            kinds.append(server if placement == "job" else _pack_for(config, server))
    for pool in config.pools:
        kinds.append(_kind(f"allocation of pool {pool}", partial(plan_allocation, config, pool)))
    return kinds


def values_of(config: AgentConfig, plan: JobPlan) -> tuple[str, ScriptValues]:
    """Return the template of a plan and what it is rendered with."""
    directory = WorkDirectory(config.work_dir).of(plan.spec.key)
    values = script_values(plan, directory=directory, node_python=config.node_python)
    return TEMPLATE_OF[plan.spec.kind], values


def _kind(name: str, plan: Callable[[], JobPlan]) -> Kind:
    try:
        job = plan()
    except ConfigError as error:
        return Kind(name, None, str(error))
    return Kind(name, job, interpreter=job.environment.interpreter)


def _pack_for(config: AgentConfig, server: Kind) -> Kind:
    """Return the job in which a packed code server would live; it takes over the options."""
    if server.plan is None:
        return server
    pack = plan_pack(config.code_servers, server.plan.settings)
    return replace(server, name=f"pack for a {server.name}", plan=pack)


def _run(config: AgentConfig, location: str | None, deployment: str) -> JobPlan:
    origin = {"repository_origin": {"executable_path": _PYTHON, "container_image": _IMAGE}}
    run = RunToLaunch(
        run_id=_RUN_ID, job_name="doctor", location=location, tags={}, code_origin=origin
    )
    return plan_run(config, run, deployment=deployment)


def _server(config: AgentConfig, location: str, deployment: str) -> JobPlan:
    data = json.dumps({"executable_path": _PYTHON, "image": _IMAGE})
    return plan_server(
        config, key=new_server_key(), deployment=deployment, location=location, deploy_data=data
    )
