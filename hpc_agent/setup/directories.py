"""Directories that the agent could take: shared ones for jobs, a local one for its state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.account import Account
from hpc_agent.store.filesystem import NETWORK_TYPES, filesystem_type_of

# By what names sites tell users of their directories on parallel file systems.
_VARIABLES = ("WORK", "SCRATCH", "PROJECT", "GROUP_HOME", "WORKDIR", "PSCRATCH", "HOME")
NAME = "hpc-agent"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A directory that is there or can be made, and the type of its file system."""

    path: Path
    filesystem: str

    @property
    def is_shared(self) -> bool:
        """Whether other machines see it, as far as this one can tell."""
        return self.filesystem in NETWORK_TYPES


def work_candidates(environ: Mapping[str, str] = os.environ) -> list[Candidate]:
    """Return directories for jobs that this user can write to, shared ones first."""
    found = [
        Candidate(above / NAME, filesystem_type_of(above))
        for above in dict.fromkeys(_above(environ))
        if above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    ]
    return sorted(found, key=lambda candidate: not candidate.is_shared)


def home_candidate(environ: Mapping[str, str] = os.environ) -> Candidate:
    """Return a directory on a local disk for the state database."""
    home = Path(environ.get("HOME", "~")).expanduser()
    usual = Candidate(home / ".local/state" / NAME, filesystem_type_of(home))
    if not usual.is_shared:
        return usual
    local = Path(f"/var/tmp/{NAME}-{Account.here().name}")  # noqa: S108 - opened by owner and mode
    return Candidate(local, filesystem_type_of(local.parent))


def _above(environ: Mapping[str, str]) -> Iterator[Path]:
    user = Account.here().name
    for name in _VARIABLES:
        if (value := environ.get(name, "")).startswith("/"):
            yield Path(value)
    for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        _, point, kind, *_ = line.split(" ")
        if kind in NETWORK_TYPES:
            yield Path(point.encode().decode("unicode_escape")) / user
