"""From what a run asks for to the plan of a step's job."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc_agent.cluster.partition_book import PartitionBook
from hpc_agent.code_servers.deploy_data import DeployData
from hpc_agent.config import AgentConfig, Retries
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.directory import NodeSpec
from hpc_agent.jobs.layers import choose_partition, settle, step_layers
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.jobs.step_options import StepTags
from hpc_agent.relay.step_requests import AskedJob
from hpc_agent.runs.planning import with_facts
from hpc_agent.runs.pool_choice import Wish, pool_of
from hpc_agent.runs.recovery import policies_of, signals_left_open
from hpc_agent.runs.surroundings import surroundings_of
from hpc_agent.runs.template import template_of
from hpc_agent.runs.worker_plan import overriding, with_warning
from hpc_agent.slurm.partition_facts import PartitionFacts
from hpc_agent.slurm.values import parse_warning
from hpc_agent.store import code_servers
from hpc_agent.store.code_servers import CodeServer
from hpc_agent.store.database import Store
from hpc_agent.store.workers import WorkerKind

STEP_KEY_PREFIX = "stp-"
ARGUMENTS = "DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS"
"""The variable from which ``dagster api execute_step`` takes its arguments."""


def step_key(run_id: str, step: str, step_attempt: int, attempt: int = 1) -> str:
    """Return the key of a step's job: the same one always gets the same, so it is never two."""
    name = "\0".join([run_id, step, str(step_attempt), str(attempt)])
    return STEP_KEY_PREFIX + hashlib.sha256(name.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A job that a run has asked for."""

    run: RunToLaunch
    asked: AskedJob
    deployment: str

    def policies(self, defaults: Retries) -> Retries:
        """Return what follows when Slurm ends it: its own tags over those of the run.

        Raises ConfigError.
        """
        tags = dict(self.run.tags)
        for step in self.asked.steps:
            tags |= step.tags
        return policies_of(defaults, tags)


async def plan_step(
    store: Store,
    config: AgentConfig,
    step: Step,
    *,
    attempt: int = 1,
    overrides: Mapping[str, str] | None = None,
    partitions: PartitionBook | None = None,
) -> JobPlan:
    """Return the plan of an attempt; nothing is written yet.

    Raises ConfigError, and SchedulerError when nothing is known of the partitions.
    """

    async def plan(facts: PartitionFacts | None) -> JobPlan:
        return await store.run(
            lambda db: _plan(
                config,
                step,
                server=code_servers.newest_of(db, step.deployment, step.run.location or ""),
                attempt=attempt,
                overrides=overrides,
                partitions=facts,
            )
        )

    return await with_facts(partitions, plan)


def _plan(
    config: AgentConfig,
    step: Step,
    *,
    server: CodeServer | None,
    attempt: int,
    overrides: Mapping[str, str] | None,
    partitions: PartitionFacts | None,
) -> JobPlan:
    run, asked = step.run, step.asked
    policies = step.policies(config.runs.retries)
    deployed = DeployData.parse(server.deploy_data) if server else DeployData()
    surroundings = surroundings_of(config, run, deployment=step.deployment, deployed=deployed)
    directory = asked.working_directory or surroundings.working_directory
    variables = {**surroundings.variables, **asked.environment}
    if asked.arguments is not None:
        argv = [*surroundings.dagster_api(), "execute_step"]
        variables[ARGUMENTS] = asked.arguments
    else:
        argv = surroundings.command(asked.command, working_directory=directory)
    try:
        layers = step_layers(
            config,
            deployment=step.deployment,
            location=run.location,
            tags=run.tags,
            steps=asked.tags,
        )
        wish = Wish(
            location=run.location,
            tags=_only(asked.tags),
            layers=layers,
            is_resized=bool(overrides),
            why_not=surroundings.why_not_in_pool,
        )
        pool = pool_of(config, wish)
    except ConfigError as error:
        raise ConfigError(f"step {asked.name}: {error}") from None
    is_warm = pool is not None and asked.arguments is not None
    version = server.version if server else ""
    layers += overriding(attempt, overrides)
    settings = settle(config, layers, deployment=step.deployment)
    if partitions is not None:
        settings = choose_partition(config, settings, partitions, deployment=step.deployment)
    warned = with_warning(settings, config)
    spec = NodeSpec(
        key=step_key(run.run_id, asked.name, asked.attempt, attempt),
        kind=WorkerKind.STEP,
        argv=argv,
        environment=variables,
        working_directory=directory,
        grace_seconds=config.runs.grace_seconds,
        # A command closes no run: it may end in good order whatever follows, in all its time.
        leave_open_on=() if asked.command else signals_left_open(policies, attempt),
        warning_seconds=_warning(warned) if asked.command and pool is None else None,
        # A command of user code captures nothing: what it prints is in its directory.
        compute_logs=surroundings.compute_logs if asked.arguments is not None else None,
        artifacts_directory=surroundings.artifacts_directory,
        dagster_yaml=surroundings.dagster_yaml,
        template=template_of(config, surroundings, location=run.location, version=version)
        if is_warm
        else None,
    )
    return JobPlan(
        spec=spec,
        title=f"Step {asked} of Dagster run {run.run_id} of {run.job_name}",
        settings=(*warned, *surroundings.container_settings()),
        environment=surroundings.environment,
        requeue=policies.lets_slurm_requeue,
        pool=pool,
    )


def _warning(settings: Sequence[Setting]) -> int | None:
    """Return how long before the time limit the job is warned, None where it is not."""
    chosen = {setting.option: setting.value for setting in settings}
    return parse_warning(chosen["signal"]) if "signal" in chosen else None


def _only(steps: StepTags) -> Mapping[str, str]:
    """Return the tags of the step, if the job carries one alone."""
    return steps[0][1] if len(steps) == 1 else {}
