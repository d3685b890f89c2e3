"""The directory of a job on the shared file system (docs/architecture.md has its contents)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_agent.private_files import write_private
from hpc_agent.store.jobs import JobKind

RELAY_FILE = "relay.json"
ORDERS = "servers"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """What the node program does; the fields of ``spec.json``."""

    key: str
    kind: JobKind
    argv: Sequence[str]
    environment: Mapping[str, str]
    working_directory: str | None
    grace_seconds: float
    parked_connections: int = 2
    relay_timeout_seconds: float = 600
    resume_argv: Sequence[str] = ()
    leave_open_on: Sequence[str] = ()
    memory_limit_mb: int | None = None
    nice: int = 0
    idle_seconds: float = 60

    def to_json(self) -> str:
        """Return ``spec.json``."""
        return json.dumps(
            {
                "version": 1,
                "key": self.key,
                "kind": self.kind.value,
                "argv": list(self.argv),
                "environment": dict(self.environment),
                "working_directory": self.working_directory,
                "grace_seconds": self.grace_seconds,
                "parked_connections": self.parked_connections,
                "relay_timeout_seconds": self.relay_timeout_seconds,
                "resume_argv": list(self.resume_argv),
                "leave_open_on": list(self.leave_open_on),
                "memory_limit_mb": self.memory_limit_mb,
                "nice": self.nice,
                "idle_seconds": self.idle_seconds,
            },
            indent=1,
        )


class WorkDirectory:
    """The agent's directory on the shared file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jobs = path / "jobs"
        self.lib = path / "lib"

    def make(self) -> None:
        """Make the directories, private to this user."""
        for directory in (self.path, self.jobs, self.lib):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, key: str) -> Path:
        """Return the directory of a job."""
        return self.jobs / key

    def prepare(self, spec: NodeSpec, *, token: str, program: Path) -> Path:
        """Make a job's directory with everything but its script; safe to repeat after a crash."""
        directory = self.of(spec.key)
        directory.mkdir(mode=0o700, exist_ok=True)
        write_private(directory / "token", token)
        write_private(directory / "spec.json", spec.to_json())
        _place(program, directory / "node.pyz")
        link = directory / RELAY_FILE
        if not link.is_symlink():
            link.symlink_to(Path("..") / ".." / RELAY_FILE)
        if spec.kind is JobKind.PACK:
            (directory / ORDERS).mkdir(mode=0o700, exist_ok=True)
        return directory

    def order(self, pack_key: str, key: str) -> None:
        """Let a pack start a server. Raises OSError when the pack's directory is gone."""
        (self.of(pack_key) / ORDERS / key).touch(mode=0o600)

    def withdraw_order(self, pack_key: str, key: str) -> None:
        """Let a pack end a server."""
        (self.of(pack_key) / ORDERS / key).unlink(missing_ok=True)

    def exit_record(self, key: str) -> dict[str, Any] | None:
        """Return a job's exit record, or None when there is none.

        The directory is listed first: an NFS client may otherwise answer from its cache that a new
        file is absent.
        """
        directory = self.of(key)
        try:
            if "exit.json" not in os.listdir(directory):  # noqa: PTH208
                return None
            content = json.loads((directory / "exit.json").read_text())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def remove(self, key: str) -> None:
        """Remove a job's directory."""
        shutil.rmtree(self.of(key), ignore_errors=True)


def _place(program: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        target.hardlink_to(program)
    except OSError:  # the file system refuses hard links
        shutil.copyfile(program, target)
