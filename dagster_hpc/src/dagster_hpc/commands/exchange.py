"""The directory in which a job and the process that asked for it exchange files."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesDefaultContextLoader,
    PipesDefaultMessageWriter,
    encode_param,
)

from dagster_hpc.jobs import JobError

_HELPERS = Path(__file__).parent / "languages"
_PRIVATE = 0o700


@dataclass(frozen=True)
class Delivered:
    """How far the messages of a job have been handed to Dagster.

    Log messages before ``offset`` are in the event log since ``at``; ``created`` is when the job
    was first asked for. Times are of this process's clock, as those of the events are.
    """

    created: float
    at: float
    offset: int = 0


class Exchange:
    """A job's files: its context, its messages, and what was delivered of them.

    ``prepared_at`` is when the job could begin at the earliest, by the clock of the file system.
    """

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self._files = self.directory / "exchange"
        self.messages = str(self._files / "messages.jsonl")
        self._context = self._files / "context.json"
        self._delivered = self._files / "delivered.json"
        self.prepared_at = 0.0

    def prepare(self, context: Mapping[str, Any]) -> Delivered | None:
        """Write what the job reads, unless that was done before: then return what was delivered.

        Raises JobError when the directory cannot be made, or is somebody else's.
        """
        try:
            for directory in (self.directory, self._files):
                directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            found = self._files.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise JobError(f"{self._files} is not a directory of this account")
            before = self.delivered() if self._delivered.exists() else None
            if before is None:
                self._replace(self._files / "context.tsv", "".join(_flat(context)))
                self._replace(self._context, json.dumps(context))
                Path(self.messages).touch(mode=0o600)
                now = time.time()
                self.store(Delivered(created=now, at=now))
            self.prepared_at = self._context.stat().st_mtime
        except OSError as error:
            raise JobError(f"no exchange of files with the job: {error}") from None
        return before

    def environment(self) -> dict[str, str]:
        """Return what stock dagster-pipes and the helpers of other languages find the files by."""
        return {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param(
                {PipesDefaultContextLoader.FILE_PATH_KEY: str(self._context)}
            ),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param(
                {PipesDefaultMessageWriter.FILE_PATH_KEY: self.messages}
            ),
            "DAGSTER_HPC_EXCHANGE": str(self._files),
            "DAGSTER_HPC_PIPES_SH": str(_HELPERS / "dagster_pipes.sh"),
            "DAGSTER_HPC_PIPES_R": str(_HELPERS / "dagster_pipes.R"),
            "DAGSTER_HPC_PIPES_JL": str(_HELPERS / "dagster_pipes.jl"),
        }

    def delivered(self) -> Delivered:
        """Return how far the messages have come. Raises JobError."""
        try:
            return Delivered(**json.loads(self._delivered.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise JobError(f"{self._delivered} is of no use: {error}") from None

    def store(self, delivered: Delivered) -> None:
        """Say how far the messages are delivered; a process that comes after this goes on there.

        Raises OSError.
        """
        self._replace(self._delivered, json.dumps(asdict(delivered)))

    def _replace(self, path: Path, text: str) -> None:
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8", errors="replace")
        unfinished.replace(path)


def _flat(context: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the context as lines of name, tab and value, for languages without JSON.

    Text is as it is, with backslash, tab and newline escaped; what is no text is JSON.
    """
    lines = []
    for name, value in context.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            lines.append(f"{_escaped(prefix + str(name))}\t{_escaped(text)}\n")
    return lines


def _escaped(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
    return escaped.replace("\r", "\\r")
