"""Reading agent.yaml and the environment: one message for all mistakes, with hints."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hpc_agent.config.agent import AgentConfig
from hpc_agent.config.jobs import Location
from hpc_agent.errors import ConfigError
from hpc_agent.hints import did_you_mean

ENVIRONMENT_PREFIX = "HPC_AGENT__"
DEFAULT_PATHS = (
    Path("agent.yaml"),
    Path("~/.config/hpc-agent/agent.yaml"),
    Path("/etc/hpc-agent/agent.yaml"),
)


class _Loader(yaml.SafeLoader):
    """YAML without numbers in base 60: ``12:00:00`` is a time of sbatch, not 43200 minutes."""

    yaml_implicit_resolvers = {
        first: [
            (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float"))
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


# YAML 1.2, core schema. YAML 1.1 reads 027 as octal as well.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$|0x[0-9a-fA-F]+$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def load_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> AgentConfig:
    """Read agent.yaml and the environment. Raises ConfigError with one message for all mistakes."""
    found = path or _first_existing(DEFAULT_PATHS)
    if found is None and not any(name.startswith(ENVIRONMENT_PREFIX) for name in environ):
        searched = ", ".join(str(candidate) for candidate in DEFAULT_PATHS)
        raise ConfigError(
            f"no agent.yaml found (looked for {searched}). Write one with "
            "`hpc-agent config example > agent.yaml`, or name it with --config."
        )
    content = _read_yaml(found) if found else {}
    for name, value in sorted(environ.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            _set_from_environment(content, name, value)
    return parse_config(content, source=str(found or "environment"))


def parse_config(content: Mapping[str, Any], *, source: str) -> AgentConfig:
    """Validate a configuration. Raises ConfigError naming ``source``, the key and the reason."""
    try:
        return AgentConfig.model_validate(content)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise ConfigError(f"{source}: " + f"\n{source}: ".join(lines)) from None


def _first_existing(candidates: tuple[Path, ...]) -> Path | None:
    return next((path for path in map(Path.expanduser, candidates) if path.is_file()), None)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of keys, not {type(content).__name__}")
    return content


def _set_from_environment(content: dict[str, Any], name: str, value: str) -> None:
    *parents, leaf = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
    target = content
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"environment: {name}: {parent} is not a section")
    target[leaf] = yaml.load(value, _Loader)  # noqa: S506 - a SafeLoader


def _describe(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key{did_you_mean(location[-1], _known_keys(location[:-1]))}"
    if problem["type"] == "missing":
        return f"{key}: required, but missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message[:1].lower()}{message[1:]} (got {problem['input']!r})"


def _known_keys(path: list[str]) -> list[str]:
    model: Any = AgentConfig
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
        if model is None or not hasattr(model, "model_fields"):
            return list(Location.model_fields) if path[:1] == ["locations"] else []
    return list(model.model_fields)
