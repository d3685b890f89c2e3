"""From a LAUNCH_RUN request to the plan of a run worker's job."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.instance_ref import instance_ref
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.dagster_plus.serdes import dumps, packed
from hpc_agent.errors import ConfigError
from hpc_agent.jobs import options
from hpc_agent.jobs.directory import NodeSpec
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.store.jobs import JobKind

ARGUMENTS_VARIABLE = "DAGSTER_EXECUTE_RUN_ARGS"


def run_key(run_id: str) -> str:
    """Return the key of a run's job: the same run always gets the same, so it is never two jobs."""
    return "run-" + hashlib.sha256(run_id.encode()).hexdigest()[:20]


def plan_run(
    config: AgentConfig,
    run: RunToLaunch,
    *,
    deployment: str,
    context: Mapping[str, str] | None = None,
) -> JobPlan:
    """Return what is to be submitted. Raises ConfigError when a tag asks for what cannot be had.

    ``context`` are variables that tell user code where it runs, the same as in its code server.
    """
    environment = config.environment_of(run.location)
    python = environment.python or run.executable_path
    if python is None or run.code_origin is None:
        raise ConfigError(
            f"run {run.run_id}: it is not known which Python runs it; set `environment.python` in "
            "agent.yaml, or `executable_path` of the code location"
        )
    arguments = packed(
        "ExecuteRunArgs",
        pipeline_origin=run.code_origin,
        pipeline_run_id=run.run_id,
        instance_ref=instance_ref(deployment, config.compute_logs, local_directory="{tmp}"),
        set_exit_code_on_failure=True,
    )
    spec = NodeSpec(
        key=run_key(run.run_id),
        kind=JobKind.RUN_WORKER,
        argv=[python, "-m", "dagster", "api", "execute_run"],
        environment={**(context or {}), ARGUMENTS_VARIABLE: dumps(arguments)},
        working_directory=None,
        grace_seconds=config.runs.grace_seconds,
    )
    return JobPlan(
        spec=spec,
        title=f"Dagster run {run.run_id} of {run.job_name}",
        settings=options.merge(_sources(config, run)),
        environment=environment,
    )


def _sources(config: AgentConfig, run: RunToLaunch) -> list[options.Source]:
    sources = [
        options.Source("agent.yaml options", config.options),
        options.Source("agent.yaml runs.options", config.runs.options),
    ]
    if run.location in config.locations:
        own = config.locations[run.location].run_options
        sources.append(options.Source(f"agent.yaml locations.{run.location}.run_options", own))
    return [*sources, options.from_tags(run.tags)]
