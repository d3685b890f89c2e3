"""From a code location's deploy data to the plan of a code server's job."""

from __future__ import annotations

import json
import secrets

from hpc_agent.code_servers.deploy_data import DeployData
from hpc_agent.config import AgentConfig, Environment
from hpc_agent.dagster_plus.instance_ref import dagster_yaml, instance_ref
from hpc_agent.dagster_plus.serdes import dumps
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.directory import NodePath, NodeSpec, log_settings
from hpc_agent.jobs.interpreter import container_settings, dagster_api, has_image, python_of
from hpc_agent.jobs.layers import server_layers, settle
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.store.workers import WorkerKind


def new_server_key() -> str:
    """Return a key for one more code server."""
    return f"srv-{secrets.token_hex(10)}"


def plan_server(
    config: AgentConfig, *, key: str, deployment: str, location: str, deploy_data: str
) -> JobPlan:
    """Return what is to be submitted. Raises ConfigError when it cannot be served here."""
    try:
        data = DeployData.parse(deploy_data).located(config.environment_of(location))
    except ConfigError as error:
        raise ConfigError(f"code location {location}: {error}") from None
    if data.pex_metadata:
        raise ConfigError(
            f"code location {location}: PEX deploys are not supported; deploy it with a Python "
            "environment on the cluster (executable_path)"
        )
    environment = config.environment_of(location)
    placement = config.placement_of(location)
    python = python_of(environment, data.executable_path)
    if not python and data.image:
        raise ConfigError(
            f"code location {location}: it is deployed as container image {data.image}, and "
            "this agent starts no containers for it; set `environment.container` of the location "
            "in agent.yaml, or `environment.python` to a Python on the cluster"
        )
    if not python:
        raise ConfigError(
            f"code location {location}: it is not known which Python runs it; set "
            "`environment.python` in agent.yaml, or `executable_path` of the code location"
        )
    _check_container(environment, data, location=location, placement=placement)
    working_directory = data.start_directory(environment)
    instance = deployment, config.compute_logs, config.python_logs_of(location)
    spec = NodeSpec(
        key=key,
        kind=WorkerKind.CODE_SERVER,
        argv=[
            *dagster_api(
                environment,
                python,
                image=data.image,
                working_directory=working_directory,
            ),
            "grpc",
            "--socket",
            NodePath.SOCKET,
            "--lazy-load-user-code",
        ],
        environment=_variables(config, data, deployment=deployment, location=location),
        working_directory=working_directory,
        grace_seconds=config.runs.grace_seconds,
        memory_limit_mb=_memory_limit(config, location),
        nice=config.code_servers.login.nice if placement == "login" else 0,
        compute_logs=log_settings(config.compute_logs),
        artifacts_directory=str(config.artifacts_of(deployment, location)),
        dagster_yaml=dagster_yaml(*instance),
    )
    layers = server_layers(config, deployment=deployment, location=location)
    return JobPlan(
        spec=spec,
        title=f"Dagster code server of {deployment}/{location}",
        settings=(*settle(config, layers, deployment=deployment), *container_settings(environment)),
        environment=environment,
    )


def _check_container(
    environment: Environment, data: DeployData, *, location: str, placement: str
) -> None:
    if not has_image(environment.container, data.image):
        raise ConfigError(
            f"code location {location}: it is not known which image its container is made of; set "
            "`environment.container.image` in agent.yaml, or `image` of the code location"
        )
    if placement != "job" and container_settings(environment):
        raise ConfigError(
            f"code location {location}: a container of runtime slurm needs a job of its own; set "
            "`code_server_placement: job` of the location in agent.yaml, or runtime apptainer"
        )


def _memory_limit(config: AgentConfig, location: str) -> int | None:
    """A job of its own has Slurm's limit; where others share the memory, there must be another."""
    limits = {
        "job": None,
        "login": config.code_servers.login.memory_mb,
        "packed": config.code_servers.packed.memory_mb,
    }
    return limits[config.placement_of(location)]


def _variables(
    config: AgentConfig, data: DeployData, *, deployment: str, location: str
) -> dict[str, str]:
    reference = instance_ref(deployment, config.compute_logs, config.python_logs_of(location))
    return {
        **data.context_variables(),
        "DAGSTER_LOCATION_NAME": location,
        "DAGSTER_INJECT_ENV_VARS_FROM_INSTANCE": "1",
        "DAGSTER_INSTANCE_REF": dumps(reference),
        "DAGSTER_CONTAINER_CONTEXT": json.dumps(data.container_context or {}),
        # Runs then start with the same interpreter, by `python -m dagster`.
        "DAGSTER_CLI_API_GRPC_USE_PYTHON_ENVIRONMENT_ENTRY_POINT": "1",
        **data.target_variables(),
    }
