"""Where the user code of a run executes: its environment, directory, variables and instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hpc_agent.code_servers.deploy_data import DeployData
from hpc_agent.config import AgentConfig, Environment
from hpc_agent.dagster_plus.instance_ref import dagster_yaml, instance_ref
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.dagster_plus.serdes import Packed
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.directory import LogSettings, Word, log_settings
from hpc_agent.jobs.interpreter import (
    IN_FILE,
    container_settings,
    has_image,
    in_container,
    python_of,
)
from hpc_agent.jobs.options import Setting
from hpc_agent.runs.image import IMAGE_TAG, with_image


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What run worker, step and resumed attempt of one run have in common.

    ``image`` is the one that the code location was deployed with, ``code_origin`` where Dagster
    finds the job in it.
    """

    environment: Environment
    python: str
    image: str | None
    image_source: str
    code_origin: Mapping[str, Any]
    working_directory: str | None
    variables: Mapping[str, str]
    instance: Packed
    dagster_yaml: str
    compute_logs: LogSettings | None
    artifacts_directory: str

    @property
    def why_not_in_pool(self) -> str:
        """Say why none of it can live in a pool, "" when it can."""
        return "" if self.environment.container is None else "it executes in a container"

    def command(self, words: Sequence[str], *, working_directory: str | None = None) -> list[Word]:
        """Return a command as the job starts it: in the container where there is one."""
        directory = working_directory or self.working_directory
        return [
            *in_container(self.environment, image=self.image, working_directory=directory),
            *words,
        ]

    def dagster_api(self) -> list[Word]:
        """Return the words before a command of ``dagster api``."""
        return self.command([self.python, "-m", "dagster", "api"])

    def container_settings(self) -> tuple[Setting, ...]:
        """Return the option that puts the whole job into an OCI bundle."""
        return container_settings(self.environment, source=self.image_source)


def surroundings_of(
    config: AgentConfig, run: RunToLaunch, *, deployment: str, deployed: DeployData
) -> Surroundings:
    """Return where a run executes, as its code location was deployed. Raises ConfigError."""
    environment = with_image(
        config.environment_of(run.location),
        run.tags,
        config,
        deployment=deployment,
        location=run.location,
    )
    python = python_of(environment, run.executable_path)
    if python is None or run.code_origin is None:
        raise ConfigError(
            f"run {run.run_id}: it is not known which Python runs it; set `environment.python` in "
            "agent.yaml, or `executable_path` of the code location"
        )
    image = _repository(run).get("container_image")
    if not has_image(environment.container, image):
        raise ConfigError(
            f"run {run.run_id}: it is not known which image its container is made of; set "
            "`environment.container.image` in agent.yaml"
        )
    try:
        start_directory = deployed.located(environment).start_directory(environment)
    except ConfigError as error:
        raise ConfigError(f"run {run.run_id}: {error}") from None
    instance = deployment, config.compute_logs, config.python_logs_of(run.location)
    return Surroundings(
        environment=environment,
        python=python,
        image=image,
        image_source=f"tag {IMAGE_TAG}" if IMAGE_TAG in run.tags else IN_FILE,
        code_origin=run.code_origin,
        working_directory=start_directory or _loaded_from(config, run),
        variables=deployed.context_variables(),
        instance=instance_ref(*instance),
        dagster_yaml=dagster_yaml(*instance),
        compute_logs=log_settings(config.compute_logs),
        artifacts_directory=str(config.artifacts_of(deployment, run.location)),
    )


def _loaded_from(config: AgentConfig, run: RunToLaunch) -> str | None:
    """Return the directory that the code location was loaded from, unless it was a server's own."""
    directory = (_repository(run).get("code_pointer") or {}).get("working_directory")
    if not isinstance(directory, str) or not directory.startswith("/"):
        return None
    return None if PurePosixPath(directory).is_relative_to(config.work_dir) else directory


def _repository(run: RunToLaunch) -> Mapping[str, Any]:
    return (run.code_origin or {}).get("repository_origin") or {}


def without_container_context(code_origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the origin as it may stand in a command line, which everybody on the node can read.

    A container context may hold secrets (``env_vars``), and could outgrow the 128 KiB that Linux
    allows one argument (MAX_ARG_STRLEN, execve(2)). The run worker does not miss it: of its
    arguments it reads the run's id and the instance, and takes the origin from the stored run
    (``_execute_run_command_body`` in dagster/_cli/api.py, 1.11 to 1.13).
    """
    repository = code_origin.get("repository_origin") or {}
    return {**code_origin, "repository_origin": {**repository, "container_context": None}}
