"""From a LAUNCH_RUN request to the plan of a run worker's job."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.code_servers.deploy_data import DeployData
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.dagster_plus.serdes import dumps, packed
from hpc_agent.errors import ConfigError
from hpc_agent.jobs import options
from hpc_agent.jobs.directory import NodeSpec
from hpc_agent.jobs.layers import choose_partition, run_layers, settle
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.runs.pool_choice import Wish, pool_of
from hpc_agent.runs.recovery import policies_of, signals_left_open
from hpc_agent.runs.surroundings import surroundings_of, without_container_context
from hpc_agent.runs.template import template_of
from hpc_agent.slurm.partition_facts import PartitionFacts
from hpc_agent.slurm.values import duration_or_none
from hpc_agent.store.workers import WorkerKind


def run_key(run_id: str, attempt: int = 1) -> str:
    """Return the key of an attempt: the same one always gets the same, so it is never two jobs."""
    name = run_id if attempt == 1 else f"{run_id} attempt {attempt}"
    return "run-" + hashlib.sha256(name.encode()).hexdigest()[:20]


def plan_run(
    config: AgentConfig,
    run: RunToLaunch,
    *,
    deployment: str,
    deployed: DeployData = DeployData(),  # noqa: B008  (a value)
    attempt: int = 1,
    overrides: Mapping[str, str] | None = None,
    partitions: PartitionFacts | None = None,
    version: str = "",
) -> JobPlan:
    """Return what is to be submitted. Raises ConfigError when a tag asks for what cannot be had.

    ``deployed`` is what its code server was started from: a run gets the same directory and
    variables. ``overrides`` are the options in which a later attempt differs from the first.
    ``partitions`` are those that one is chosen from where the options name none. ``version`` is the
    code location's.
    """
    policies = policies_of(config.runs.retries, run.tags)
    surroundings = surroundings_of(config, run, deployment=deployment, deployed=deployed)
    # ExecuteRunArgs and ResumeRunArgs of dagster/_grpc/types.py have the same fields.
    arguments: dict[str, Any] = {
        "pipeline_origin": without_container_context(surroundings.code_origin),
        "pipeline_run_id": run.run_id,
        "instance_ref": surroundings.instance,
        "set_exit_code_on_failure": True,
    }
    api = surroundings.dagster_api()
    try:
        layers = run_layers(
            config, deployment=deployment, location=run.location, tags=run.tags, steps=run.steps
        )
        wish = Wish(
            location=run.location,
            tags=run.tags,
            layers=layers,
            is_resized=bool(overrides),
            why_not=surroundings.why_not_in_pool,
        )
        pool = pool_of(config, wish)
    except ConfigError as error:
        raise ConfigError(f"run {run.run_id}: {error}") from None
    spec = NodeSpec(
        key=run_key(run.run_id, attempt),
        kind=WorkerKind.RUN_WORKER,
        # 1.11 takes them from its command line alone, 1.12 and later also from the environment.
        argv=[*api, "execute_run", dumps(packed("ExecuteRunArgs", **arguments))],
        environment=surroundings.variables,
        working_directory=surroundings.working_directory,
        grace_seconds=config.runs.grace_seconds,
        resume_argv=[*api, "resume_run", dumps(packed("ResumeRunArgs", **arguments))],
        leave_open_on=signals_left_open(policies, attempt),
        compute_logs=surroundings.compute_logs,
        artifacts_directory=surroundings.artifacts_directory,
        dagster_yaml=surroundings.dagster_yaml,
        template=template_of(config, surroundings, location=run.location, version=version)
        if pool is not None
        else None,
    )
    layers += overriding(attempt, overrides)
    settings = settle(config, layers, deployment=deployment)
    if partitions is not None:
        settings = choose_partition(config, settings, partitions, deployment=deployment)
    return JobPlan(
        spec=spec,
        title=f"Dagster run {run.run_id} of {run.job_name}",
        settings=(*with_warning(settings, config), *surroundings.container_settings()),
        environment=surroundings.environment,
        requeue=policies.lets_slurm_requeue,
        pool=pool,
    )


def with_warning(settings: Sequence[Setting], config: AgentConfig) -> Sequence[Setting]:
    """Add the signal before the time limit, which lets a run worker close its run.

    slurmctld looks about every half minute, and so may send it up to 60 s early (sbatch(1),
    ``--signal``): a short job is warned in its last quarter at the earliest.
    """
    chosen = {setting.option: setting.value for setting in settings}
    if "signal" in chosen:
        return settings
    seconds = config.runs.walltime_warning_seconds or config.runs.grace_seconds
    limit = duration_or_none(chosen["time"]) if "time" in chosen else None
    margin = max(1, int(seconds if limit is None else min(seconds, limit / 4)))
    warning = Setting("signal", f"B:USR1@{margin}", "agent.yaml runs.walltime_warning_seconds")
    return (*settings, warning)


def overriding(attempt: int, overrides: Mapping[str, str] | None) -> list[options.Source]:
    """Return the layer of options in which a later attempt differs from the first."""
    return [options.Source(f"attempt {attempt}", overrides)] if overrides else []
