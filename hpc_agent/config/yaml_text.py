"""YAML as agent.yaml has it: 1.2's numbers, and one message for what is no mapping."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hpc_agent.errors import ConfigError


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


def read_value(text: str) -> Any:
    """Return the value of a text. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the keys and values of a file, none of an empty one. Raises ConfigError."""
    try:
        content = read_value(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of keys, not {type(content).__name__}")
    return content
