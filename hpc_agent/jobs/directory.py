"""The directory of a job on the shared file system (docs/architecture.md has its contents)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_agent.files import Files, LocalFiles
from hpc_agent.store.jobs import JobKind

SCRIPT = "job.sh"
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
    """The agent's directory on the file system that compute nodes share. Its methods block.

    They raise OSError, and SchedulerUnavailableError when the machine that has it is away.
    """

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self.files = files or LocalFiles()
        self.jobs = path / "jobs"
        self.lib = path / "lib"

    def make(self) -> None:
        """Make the directories, private to this user."""
        for directory in (self.path, self.jobs, self.lib):
            self.files.make_directory(directory)

    def of(self, key: str) -> Path:
        """Return the directory of a job."""
        return self.jobs / key

    def script_of(self, key: str) -> Path:
        """Return where the script of a job is, or of an array."""
        return self.of(key) / SCRIPT

    def prepare(self, spec: NodeSpec, *, token: str, program: Path) -> Path:
        """Make a job's directory with everything but its script; safe to repeat after a crash."""
        files, directory = self.files, self.of(spec.key)
        files.make_directory(directory)
        files.write(directory / "token", token)
        files.write(directory / "spec.json", spec.to_json())
        files.link(program, directory / "node.pyz")
        files.symlink(f"../../{RELAY_FILE}", directory / RELAY_FILE)
        if spec.kind is JobKind.PACK:
            files.make_directory(directory / ORDERS)
        return directory

    def order(self, pack_key: str, key: str) -> None:
        """Let a pack start a server. Raises OSError when the pack's directory is gone."""
        self.files.touch(self.of(pack_key) / ORDERS / key)

    def withdraw_order(self, pack_key: str, key: str) -> None:
        """Let a pack end a server."""
        self.files.remove(self.of(pack_key) / ORDERS / key)

    def exit_record(self, key: str) -> dict[str, Any] | None:
        """Return a job's exit record, or None when there is none."""
        try:
            content = json.loads(self.files.read(self.of(key) / "exit.json"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def remove(self, key: str) -> None:
        """Remove a job's directory."""
        self.files.remove_tree(self.of(key))
