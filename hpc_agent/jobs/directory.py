"""The directory of a job on the shared file system (docs/architecture.md has its contents)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hpc_agent.config import ComputeLogs
from hpc_agent.files import Files, LocalFiles
from hpc_agent.hostile_files import UnfitFileError
from hpc_agent.jobs.disk_trouble import told_of
from hpc_agent.jobs.exit_record import MAX_BYTES, Claim, ExitRecord
from hpc_agent.store.workers import WorkerKind

log = logging.getLogger(__name__)

SCRIPT = "job.sh"
RELAY_FILE = "relay.json"
ORDERS = "servers"


class NodePath(Enum):
    """A word of a command that is known on the node alone."""

    SOCKET = "socket"
    TMP = "tmp"


# Text is never looked into: what users and the control plane write may hold anything.
Word = str | NodePath


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How often the node program uploads compute logs, and how much of each."""

    interval_seconds: float
    most_bytes: int


def log_settings(chosen: ComputeLogs) -> LogSettings | None:
    """Return what the node program does with compute logs, None where nothing is captured."""
    if not chosen.enabled:
        return None
    return LogSettings(
        interval_seconds=chosen.upload_interval_seconds, most_bytes=chosen.max_mb << 20
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A process that has imported the user's code, and that workers of a pool are forked from.

    ``start`` is ``fork`` or ``spare``; ``argv_prefix`` are the words before a worker's own command.
    """

    id: str
    start: str
    python: str
    argv_prefix: Sequence[str]
    code_origin: Mapping[str, Any]
    environment: Mapping[str, str]
    working_directory: str | None
    dagster_yaml: str

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in ``spec.json``, and in the answers to a pool's supervisor."""
        return {
            "id": self.id,
            "start": self.start,
            "python": self.python,
            "argv_prefix": list(self.argv_prefix),
            "code_origin": dict(self.code_origin),
            "environment": dict(self.environment),
            "working_directory": self.working_directory,
            "dagster_yaml": self.dagster_yaml,
        }


@dataclass(frozen=True, slots=True)
class Slot:
    """What one worker of a pool may use; ``memory_mb`` None: no limit but the allocation's."""

    cpus: int
    memory_mb: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """What the node program does; the fields of ``spec.json``."""

    key: str
    kind: WorkerKind
    argv: Sequence[Word]
    environment: Mapping[str, str]
    working_directory: str | None
    grace_seconds: float
    parked_connections: int = 2
    relay_timeout_seconds: float = 600
    resume_argv: Sequence[Word] = ()
    leave_open_on: Sequence[str] = ()
    warning_seconds: float | None = None
    memory_limit_mb: int | None = None
    nice: int = 0
    idle_seconds: float = 60
    compute_logs: LogSettings | None = None
    artifacts_directory: str | None = None
    dagster_yaml: str | None = None
    template: Template | None = None
    slot: Slot | None = None

    def to_json(self) -> str:
        """Return ``spec.json``."""
        return json.dumps(
            {
                "version": 2,
                "key": self.key,
                "kind": self.kind.value,
                "argv": [_word(word) for word in self.argv],
                "environment": dict(self.environment),
                "working_directory": self.working_directory,
                "grace_seconds": self.grace_seconds,
                "parked_connections": self.parked_connections,
                "relay_timeout_seconds": self.relay_timeout_seconds,
                "resume_argv": [_word(word) for word in self.resume_argv],
                "leave_open_on": list(self.leave_open_on),
                "warning_seconds": self.warning_seconds,
                "memory_limit_mb": self.memory_limit_mb,
                "nice": self.nice,
                "idle_seconds": self.idle_seconds,
                "compute_logs": self.compute_logs and asdict(self.compute_logs),
                "artifacts_directory": self.artifacts_directory,
                "dagster_yaml": self.dagster_yaml,
                "template": self.template and self.template.to_json(),
                "slot": self.slot and asdict(self.slot),
            },
            indent=1,
        )


def _word(word: Word) -> str | dict[str, str]:
    return {"path": word.value} if isinstance(word, NodePath) else word


class WorkDirectory:
    """The agent's directory on the file system that compute nodes share. Its methods block.

    They raise FilesUnavailableError when the file system refuses what should be possible, and
    SchedulerUnavailableError when the machine that has it is away: then nothing is known of a job.
    """

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self.files = files or LocalFiles()
        self.jobs = path / "jobs"
        self.lib = path / "lib"

    def make(self) -> None:
        """Make the directories, private to this user. Raises UnsafePathError and OSError."""
        self.files.make_directory(self.path)
        for directory in (self.jobs, self.lib):
            self.files.make_directory(directory, parents=False)

    def of(self, key: str) -> Path:
        """Return the directory of a job."""
        return self.jobs / key

    def script_of(self, key: str) -> Path:
        """Return where the script of a job is, or of an array."""
        return self.of(key) / SCRIPT

    def prepare(self, spec: NodeSpec, *, token: str, program: Path) -> Path:
        """Make a job's directory with everything but its script.

        Safe to repeat after a crash, or after it stopped half-way because the disk was full.
        """
        with told_of(self.path):
            files, directory = self.files, self._made(spec.key)
            files.write(directory / "token", token)
            files.write(directory / "spec.json", spec.to_json())
            files.link(program, directory / "node.pyz")
            files.symlink(f"../../{RELAY_FILE}", directory / RELAY_FILE)
            if spec.kind is WorkerKind.PACK:
                files.make_directory(directory / ORDERS, parents=False)
        return directory

    def write_token(self, key: str, token: str) -> None:
        """Write the token of a job whose directory is there."""
        with told_of(self.path):
            self.files.write(self.of(key) / "token", token)

    def write_script(self, key: str, text: str) -> Path:
        """Write the script of a job, or of an array, whose directory is there; return its path."""
        path = self.script_of(key)
        with told_of(self.path):
            self.files.write(path, text)
        return path

    def script(self, key: str) -> str:
        """Return the script of a job as it was written."""
        with told_of(self.path):
            return self.files.read(self.script_of(key), within=self.jobs).decode(errors="replace")

    def link_tasks(self, array_key: str, keys: Sequence[str]) -> Path:
        """Make the directory of an array anew, with a link for each index; return it."""
        directory = self.of(array_key)
        with told_of(self.path):
            self.files.remove_tree(directory)
            self._made(array_key)
            for index, key in enumerate(keys):
                self.files.symlink(f"../{key}", directory / str(index))
        return directory

    def order(self, pack_key: str, key: str) -> None:
        """Let a pack start a server."""
        with told_of(self.path):
            self.files.touch(self.of(pack_key) / ORDERS / key)

    def withdraw_order(self, pack_key: str, key: str) -> None:
        """Let a pack end a server."""
        with told_of(self.path):
            self.files.remove(self.of(pack_key) / ORDERS / key)

    def exit_record(self, key: str) -> ExitRecord | None:
        """Return a job's exit record; None when there is none, or nonsense in its place.

        Whose it is, it says itself: an earlier start, or another job of this key, may have left it.
        """
        record = ExitRecord.parse(self._left_by_job(key, "exit.json"))
        return None if record is not None and record.outcome == "duplicate" else record

    def claim(self, key: str) -> Claim | None:
        """Return which start of a job has it; None when none has, or nobody can say."""
        return Claim.parse(self._left_by_job(key, "claim"))

    def remove(self, key: str) -> None:
        """Remove a job's directory, as far as that is possible."""
        self.files.remove_tree(self.of(key))

    def _made(self, key: str) -> Path:
        """Make a job's directory where `jobs` is: without it, the file system is not mounted.

        Raises UnsafePathError for one that somebody else has made.
        """
        directory = self.of(key)
        if not self.files.is_directory(directory, follow=False):
            self.files.remove(directory)  # a link or a file in the way, as user code may leave it
        self.files.make_directory(directory, parents=False)
        return directory

    def _left_by_job(self, key: str, name: str) -> bytes | None:
        path = self.of(key) / name
        with told_of(self.path):
            try:
                return self.files.read(path, limit=MAX_BYTES, within=self.jobs)
            except UnfitFileError as error:
                log.warning("job %s: %s is taken for absent: %s", key, name, error)
                return None
            except FileNotFoundError:
                if not self.files.is_directory(self.jobs):
                    raise  # everything seems absent where the file system is not mounted
                return None
