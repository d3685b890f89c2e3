"""Reading dagster_cloud.yaml, the file format of Dagster+, into locations to deploy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from dagster_cloud_cli.config.merger import DagsterCloudConfigDefaultsMerger
from dagster_cloud_cli.config.models import CodeSource, DagsterCloudYaml
from dagster_cloud_cli.config.models import Location as FileLocation
from dagster_cloud_cli.core.workspace import CodeLocationDeployData
from dagster_shared.serdes import deserialize_value, serialize_value
from pydantic import ValidationError

from hpc_agent.control_plane.store.locations import Location, NewLocation
from hpc_agent.errors import ConfigError
from hpc_agent.hints import did_you_mean
from hpc_agent.releases import installed_in

_KEYS = sorted(
    {*DagsterCloudYaml.model_fields, *FileLocation.model_fields, *CodeSource.model_fields}
)


def unread_settings(locations: Iterable[NewLocation]) -> list[str]:
    """Return a sentence about each location that has settings which this agent does not read."""
    return [
        f"{location.name}: container_context is for agents of other platforms, and hpc-agent reads "
        "nothing of it: Slurm options and the environment of a location are set in agent.yaml, "
        "those of a run in its tags"
        for location in locations
        if deserialize_value(location.deploy_data, CodeLocationDeployData).container_context
    ]


def misfits(locations: Iterable[NewLocation]) -> list[str]:
    """Return a sentence about each Python of this machine whose two releases do not fit."""
    found = []
    for location in locations:
        data = deserialize_value(location.deploy_data, CodeLocationDeployData)
        python = data.executable_path
        pair = installed_in(Path(python)) if python and Path(python).is_file() else None
        if python and pair is not None and pair.trouble is not None:
            found.append(
                f"{location.name}: {python} has {pair.trouble}: run `{pair.remedy(python)}`"
            )
    return found


def read_locations(path: Path) -> list[NewLocation]:
    """Return the locations in a file. Raises ConfigError that says what is wrong, and where.

    A relative working_directory counts from the file's own directory, since a job's means nothing.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    found = locations_of(document, where=str(path), base=path.parent.resolve())
    if not found:
        raise ConfigError(f"{path} lists no locations: nothing to deploy")
    return found


def locations_of(document: object, *, where: str, base: Path | None = None) -> list[NewLocation]:
    """Return the locations in a parsed dagster_cloud.yaml. Raises ConfigError."""
    try:
        parsed = DagsterCloudYaml.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_describe(error)}") from error
    merger = DagsterCloudConfigDefaultsMerger()  # type: ignore[no-untyped-call]
    return [_new_location(where, base, location) for location in merger.process(parsed).locations]


def deploy_data_for_agent(location: Location) -> str:
    """Return what an agent starts a location's code server with, a CodeLocationDeployData.

    User code learns from its environment where it runs, by the names that Dagster+ uses
    (dagster_cloud/constants.py).
    """
    data = deserialize_value(location.deploy_data, CodeLocationDeployData)
    environment = {
        "DAGSTER_CLOUD_DEPLOYMENT_NAME": location.deployment,
        "DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT": "1" if location.is_branch else "0",
        "DAGSTER_CLOUD_LOCATION_NAME": location.name,
    }
    return serialize_value(data.with_cloud_context_env(environment))


def _new_location(where: str, base: Path | None, location: FileLocation) -> NewLocation:
    source = location.code_source
    if source is None:
        raise ConfigError(
            f"{where}: location {location.location_name!r} has no code_source: add python_file, "
            "module_name, package_name or autoload_defs_module_name"
        )
    directory = location.working_directory
    if base is not None and directory is not None:
        directory = str(base / directory)
    deploy_data = CodeLocationDeployData(
        image=location.image,
        python_file=source.python_file,
        package_name=source.package_name,
        module_name=source.module_name,
        autoload_defs_module_name=source.autoload_defs_module_name,
        working_directory=directory,
        executable_path=location.executable_path,
        attribute=location.attribute,
        container_context=location.container_context,
        agent_queue=location.agent_queue,
    )
    return NewLocation(
        name=location.location_name,
        agent_queue=location.agent_queue,
        deploy_data=serialize_value(deploy_data),
    )


def _describe(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        words = problem["msg"]
        if problem["type"] == "extra_forbidden":
            words = f"there is no such key{did_you_mean(str(problem['loc'][-1]), _KEYS)}"
        problems.append(f"{where}: {words}" if where else words)
    return "; ".join(problems)
