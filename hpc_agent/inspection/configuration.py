"""What is wrong with a configuration on this machine, and what of it comes from where."""

from __future__ import annotations

import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_agent.config import AgentConfig, read_token
from hpc_agent.config.layers import leaves
from hpc_agent.config.load import Loaded
from hpc_agent.config.places import archives_here, interpreters_here, named_here
from hpc_agent.config.section import Place
from hpc_agent.errors import ConfigError, HpcAgentError, StoreError
from hpc_agent.jobs.layers import check_layers
from hpc_agent.redaction import redacted_setting
from hpc_agent.store.filesystem import refuse_network_filesystem


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A key of the configuration; ``source`` is a file, ``environment`` or ``default``.

    ``overruled`` are sources whose value does not count, since the site enforces its own.
    """

    key: str
    value: Any
    source: str
    overruled: tuple[str, ...] = ()


def faults(config: AgentConfig) -> list[str]:
    """Return what keeps the agent from starting here, each with its key."""
    found = [
        f"{each.key}: {fault}"
        for each in (*named_here(config), *archives_here(config))
        if (fault := why_not(each.path, each.place)) is not None
    ]
    found += [
        f"{each.key}: {each.path} is not on this machine, or no program. Is it on compute nodes "
        "alone? `hpc-agent doctor --only user-python` asks one"
        for each in interpreters_here(config)
        if not (each.path.is_file() and os.access(each.path, os.X_OK))
    ]
    try:
        refuse_network_filesystem(config.home)
    except StoreError as error:
        found.append(str(error))
    for check in (check_layers, read_token):
        try:
            check(config)
        except HpcAgentError as error:
            lines = [line.removeprefix("agent.yaml ") for line in str(error).splitlines()]
            found += [line for line in lines if not _is_told(line, found)]
    return found


def settings_of(loaded: Loaded, *, with_defaults: bool = True) -> list[Setting]:
    """Return the effective settings with their sources; secrets are hidden."""
    layers = loaded.layers
    settings = [
        Setting(
            key=".".join(key),
            value=redacted_setting(key[-1], value),
            source=layers.source_of(key),
            overruled=tuple(
                source
                for length in range(1, len(key) + 1)
                for source in layers.overruled.get(key[:length], ())
            ),
        )
        for key, value in leaves(loaded.config.model_dump(mode="json"))
    ]
    return [each for each in settings if with_defaults or each.source != "default"]


def overruled_notes(loaded: Loaded) -> list[str]:
    """Say which of a user's own settings do not count, since the site enforces its own."""
    return [
        f"{'.'.join(key)} is the site's to decide: what {' and '.join(sources)} says is not used"
        for key, sources in loaded.layers.overruled.items()
    ]


def _is_told(line: str, found: list[str]) -> bool:
    """Whether a fault of the same key is there already."""
    return any(line.startswith(fault.partition(": ")[0] + ":") for fault in found)


def why_not(path: Path, place: Place) -> str | None:
    """Say why a path is not what has to be there; None when it is."""
    if place is Place.MADE:
        return _why_not_made(path)
    if place is Place.WRITTEN:
        return f"{path} is a directory" if path.is_dir() else _why_not_made(path.parent)
    is_directory = place is Place.DIRECTORY
    if not path.exists():
        return f"{path}: there is no such {'directory' if is_directory else 'file'}"
    if is_directory != path.is_dir():
        return f"{path} is {'no' if is_directory else 'a'} directory"
    if place is Place.CERTIFICATES:
        return _why_no_certificates(path)
    return None if os.access(path, os.R_OK) else f"{path} cannot be read"


def _why_no_certificates(path: Path) -> str | None:
    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        return f"{path} holds no certificates in PEM"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None


def _why_not_made(path: Path) -> str | None:
    """Try: only the file system knows of quotas, read-only mounts and squashed roots."""
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        cannot = f"cannot be made: {there} is no directory"
        return f"{path} {cannot if there != path else 'is no directory'}"
    try:
        Path(tempfile.mkdtemp(prefix=".hpc-agent-check-", dir=there)).rmdir()
    except OSError as error:
        can = "be written to" if there == path else "be made"
        return f"{path} cannot {can}: {there}: {error.strerror}"
    return None


def require_right(config: AgentConfig, *, source: str) -> None:
    """Raise ConfigError with one message for all faults."""
    if found := faults(config):
        raise ConfigError("\n".join(f"{source}: {fault}" for fault in found))
