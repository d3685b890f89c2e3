"""The paths that agent.yaml names, by their keys, and what has to be there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from hpc_agent.config.agent import AgentConfig
from hpc_agent.config.environment import Environment
from hpc_agent.config.section import Place


@dataclass(frozen=True, slots=True)
class Named:
    """A path that a key names."""

    key: str
    path: Path
    place: Place


def named_here(config: AgentConfig) -> list[Named]:
    """Return the paths of this machine; those of a login node that is reached by SSH are not."""
    elsewhere = set()
    if config.scheduler.transport == "ssh":
        elsewhere |= {"scheduler.slurm_conf", "scheduler.bin_dir"}
    if config.has_files_elsewhere:
        elsewhere |= {"work_dir", "artifacts.directory"}
    return [each for each in _named(config) if each.key not in elsewhere]


def interpreters_here(config: AgentConfig) -> list[Named]:
    """Return the Pythons of user code, unless they are in a container or on another machine."""
    return [
        Named(f"{key}.{environment.interpreter_key}", Path(python), Place.FILE)
        for key, environment in _environments(config).items()
        if (python := environment.shared_interpreter) is not None
        and python.startswith("/")
        and environment.container is None
    ]


def archives_here(config: AgentConfig) -> list[Named]:
    """Return the archives of environments that nodes unpack, unless they are on another machine."""
    return [
        Named(f"{key}.packed", Path(environment.packed), Place.FILE)
        for key, environment in _environments(config).items()
        if environment.packed is not None
    ]


def _environments(config: AgentConfig) -> dict[str, Environment]:
    """Return the environments whose files this machine can see, by their keys."""
    if config.has_files_elsewhere:
        return {}
    return {"environment": config.environment} | {
        f"locations.{name}.environment": location.environment
        for name, location in config.locations.items()
        if location.environment is not None
    }


def place_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> Place | None:
    """Return what a field's type says has to be there."""
    found = next((each for each in metadata if isinstance(each, Place)), None)
    if found is not None:
        return found
    # In a union, Annotated holds its own metadata.
    inner = (place_of(each, getattr(each, "__metadata__", ())) for each in get_args(annotation))
    return next((each for each in inner if each is not None), None)


def _named(section: BaseModel, above: str = "") -> Iterator[Named]:
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), f"{above}{name}"
        if isinstance(value, BaseModel):
            yield from _named(value, f"{key}.")
        elif isinstance(value, dict):
            for each, below in value.items():
                if isinstance(below, BaseModel):
                    yield from _named(below, f"{key}.{each}.")
        elif isinstance(value, Path):
            place = place_of(field.annotation, tuple(field.metadata))
            if place is not None:
                yield Named(key, value, place)
