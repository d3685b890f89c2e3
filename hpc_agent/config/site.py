"""The site's profile, under every user's agent.yaml: defaults, and what users may not override.

It is for people who mean well: jobs and agent are the user's own processes, and what must hold
against a user is for Slurm to enforce.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.config.layers import Key, Layer
from hpc_agent.config.yaml_text import read_mapping
from hpc_agent.errors import ConfigError, UnsafePathError
from hpc_agent.private_directories import weakness

SITE_FILE = Path("/etc/hpc-agent/site.yaml")
SITE_VARIABLE = "HPC_AGENT_SITE"
_ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class Site:
    """What a site's profile says; ``enforced`` are the keys that it decides on alone."""

    layer: Layer
    enforced: tuple[Key, ...] = ()


def read_site(environ: Mapping[str, str]) -> Site | None:
    """Return the site's profile, None where there is none.

    Raises ConfigError, UnsafePathError for a file that others than root and this user can change.
    """
    path = Path(environ.get(SITE_VARIABLE) or SITE_FILE)
    if not path.exists():
        return None
    _require_trusted(path)
    content = read_mapping(path)
    keys = content.pop(_ENFORCE, None) or []
    if not isinstance(keys, list) or not all(isinstance(key, str) and key for key in keys):
        raise ConfigError(f"{path}: {_ENFORCE}: must be a list of keys, such as scheduler.arrays")
    return Site(Layer(str(path), content), tuple(tuple(key.split(".")) for key in keys))


def _require_trusted(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePathError(f"{path} is not a regular file")
    if status.st_uid not in {0, os.geteuid()}:
        raise UnsafePathError(f"{path} belongs to uid {status.st_uid}: it must be root's")
    if status.st_mode & 0o022:
        raise UnsafePathError(f"{path} can be written by others: run `chmod go-w {path}`")
    if (reason := weakness(path)) is not None:
        raise UnsafePathError(f"{path} is not to be trusted: {reason}")
