"""Reading agent.yaml, the site's profile and the environment: one message for all mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hpc_agent.config.agent import AgentConfig
from hpc_agent.config.jobs import Location
from hpc_agent.config.layers import Key, Layer, Layers, enforced_layers
from hpc_agent.config.site import Site, read_site
from hpc_agent.config.yaml_text import read_mapping, read_value
from hpc_agent.errors import ConfigError
from hpc_agent.hints import did_you_mean
from hpc_agent.redaction import redacted_setting

ENVIRONMENT_PREFIX = "HPC_AGENT__"
DEFAULT_PATHS = (
    Path("agent.yaml"),
    Path("~/.config/hpc-agent/agent.yaml"),
    Path("/etc/hpc-agent/agent.yaml"),
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and where each key of it comes from."""

    config: AgentConfig
    layers: Layers


def load_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> AgentConfig:
    """Read agent.yaml and the environment. Raises ConfigError with one message for all mistakes."""
    return load_layers(path, environ).config


def load_layers(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read a configuration with its sources: the site's profile, agent.yaml, the environment.

    Later ones win, unless the site enforces a key. Raises ConfigError.
    """
    found = path or _first_existing(DEFAULT_PATHS)
    if found is None and not any(name.startswith(ENVIRONMENT_PREFIX) for name in environ):
        searched = ", ".join(str(candidate) for candidate in DEFAULT_PATHS)
        raise ConfigError(
            f"no agent.yaml found (looked for {searched}). `hpc-agent init` writes one; "
            "name another with --config."
        )
    own = [Layer(str(found), read_mapping(found))] if found else []
    if variables := _from_environment(environ):
        own.append(Layer("environment", variables))
    site = read_site(environ)
    layers = Layers(own) if site is None else _under(site, own)
    return Loaded(_validated(layers.content, layers.nearest_source), layers)


def parse_config(content: Mapping[str, Any], *, source: str) -> AgentConfig:
    """Validate a configuration. Raises ConfigError naming ``source``, the key and the reason."""
    return _validated(content, lambda key: source)


def _validated(content: Mapping[str, Any], source_of: Callable[[Key], str]) -> AgentConfig:
    try:
        return AgentConfig.model_validate(content)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for problem in error.errors():
            key = _key_in(content, problem)
            where = ": ".join(filter(None, (source_of(key), ".".join(key))))
            # A value that is none of several kinds has a problem for each of them.
            lines.setdefault(where, _describe(problem, key))
        raise ConfigError("\n".join(f"{key}: {text}" for key, text in lines.items())) from None


def _under(site: Site, own: list[Layer]) -> Layers:
    """Put the site's profile below a user's own sources."""
    for *parents, leaf in site.enforced:
        known = _known_keys(parents)
        if known and leaf not in known:
            key = ".".join((*parents, leaf))
            hint = did_you_mean(leaf, known)
            raise ConfigError(f"{site.layer.source}: enforce: {key}: unknown key{hint}")
    return enforced_layers(site.layer, own, site.enforced)


def _first_existing(candidates: tuple[Path, ...]) -> Path | None:
    return next((path for path in map(Path.expanduser, candidates) if path.is_file()), None)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in sorted(environ.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            _set_from_environment(content, name, value)
    return content


def _set_from_environment(content: dict[str, Any], name: str, value: str) -> None:
    *parents, leaf = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
    target = content
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"environment: {name}: {parent} is not a section")
    try:
        target[leaf] = read_value(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"environment: {name}: not valid YAML: {error}") from None


def _key_in(content: Any, problem: Any) -> Key:
    """Return the key that a problem is about; pydantic adds the kinds that the value is not."""
    key: list[str] = []
    for part in problem["loc"]:
        if isinstance(content, Mapping) and (part in content or problem["type"] == "missing"):
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int):
            content = content[part]
        else:
            break
        key.append(str(part))
    return tuple(key)


def _describe(problem: Any, key: Key) -> str:
    if problem["type"] == "extra_forbidden":
        return f"unknown key{did_you_mean(key[-1], _known_keys(key[:-1]))}"
    if problem["type"] == "missing":
        return "required, but missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "path_type":
        message = "must be a path"
    got = problem["input"]
    shown = "" if isinstance(got, dict) else f" (got {_shown(key, got)})"
    return f"{message[:1].lower()}{message[1:]}{shown}"


def _shown(key: Key, value: Any) -> str:
    text = str(value) if isinstance(value, Path) else value
    return repr(redacted_setting(key[-1] if key else "", text))


def _known_keys(path: Sequence[str]) -> list[str]:
    model: Any = AgentConfig
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
        if model is None or not hasattr(model, "model_fields"):
            return list(Location.model_fields) if path[0] == "locations" else []
    return list(model.model_fields)
