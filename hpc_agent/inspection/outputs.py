"""What the processes of a job have printed: its files, read as they grow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.errors import HpcAgentError
from hpc_agent.files import Files
from hpc_agent.inspection.names import find_worker
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.wording import describe
from hpc_agent.store import workers
from hpc_agent.store.database import read_only
from hpc_agent.store.workers import Worker

# ``job`` is what the job script itself and its set-up lines print.
STREAMS = {"stdout": "stdout", "stderr": "stderr", "job": "slurm.out"}
_FOLLOW_SECONDS = 0.5
_APPEARS_SECONDS = 60.0
_RUN_ID_LENGTH = 36
_CHUNK = 1 << 18


def printed(
    config: AgentConfig, files: Files, name: str, streams: Sequence[str], *, follow: bool
) -> Iterator[tuple[str, bytes]]:
    """Yield what a job has printed, in pieces with their streams; ``follow`` until it is over.

    A run that was launched just now, and has not come to the agent, is waited for by its whole id.

    Raises HpcAgentError when there is no such job, or none of the streams yet.
    """
    db = read_only(config.home)
    worker = _launched(db, name) if follow else find_worker(db, name)
    jobs = WorkDirectory(config.work_dir).jobs
    paths = {stream: jobs / worker.key / STREAMS[stream] for stream in streams}
    if not follow:
        missing = [path for path in paths.values() if not _exists(files, path)]
        if len(missing) == len(paths):
            raise HpcAgentError(f"{missing[0]}: does not exist yet: {describe(worker)}")
    offsets = dict.fromkeys(paths, 0)
    while True:
        # Asked first: what it prints before its end is read once more after it.
        is_over = workers.get(db, worker.key).phase.is_final
        is_silent = True
        for stream, path in paths.items():
            while chunk := _read(files, path, offsets[stream]):
                is_silent = False
                offsets[stream] += len(chunk)
                yield stream, chunk
        if not follow or (is_silent and is_over):
            return
        if is_silent:
            time.sleep(_FOLLOW_SECONDS)


class Tail:
    """The end of one stream of a job, and what comes after it, read piece by piece."""

    def __init__(
        self, config: AgentConfig, files: Files, key: str, stream: str, *, last_bytes: int
    ) -> None:
        self._files = files
        self._path = WorkDirectory(config.work_dir).jobs / key / STREAMS[stream]
        self._last_bytes = last_bytes
        self._offset: int | None = None

    def read(self) -> bytes:
        """Return what has come; nothing when there is no such file. Raises HpcAgentError."""
        size = _size(self._files, self._path)
        if self._offset is None or size < self._offset:
            # What a requeued job prints replaces what it had printed before.
            self._offset = max(size - self._last_bytes, 0)
        pieces = []
        while (left := size - self._offset) > 0:
            piece = _read(self._files, self._path, self._offset, at_most=min(left, _CHUNK))
            if not piece:
                break
            self._offset += len(piece)
            pieces.append(piece)
        return b"".join(pieces)


def last_of(config: AgentConfig, files: Files, name: str, stream: str, size: int) -> bytes:
    """Return the end of one stream of a job, at most ``size`` bytes; empty when there is none."""
    worker = find_worker(read_only(config.home), name)
    return Tail(config, files, worker.key, stream, last_bytes=size).read()


def _size(files: Files, path: Path) -> int:
    try:
        return files.size(path, within=path.parent.parent)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise HpcAgentError(f"{path}: {error.strerror or error}") from error


def _launched(db: Database, name: str) -> Worker:
    until = time.monotonic() + (_APPEARS_SECONDS if len(name) == _RUN_ID_LENGTH else 0.0)
    while True:
        try:
            return find_worker(db, name)
        except HpcAgentError:
            if time.monotonic() >= until:
                raise
        time.sleep(_FOLLOW_SECONDS)


def _exists(files: Files, path: Path) -> bool:
    try:
        _read(files, path, 0, missing_ok=False)
    except FileNotFoundError:
        return False
    return True


def _read(
    files: Files, path: Path, offset: int, *, at_most: int = _CHUNK, missing_ok: bool = True
) -> bytes:
    """Return what follows. Raises HpcAgentError for what is no file of the job's own directory."""
    try:
        return files.read_from(path, offset, at_most, within=path.parent.parent)
    except FileNotFoundError:
        if missing_ok:
            return b""
        raise
    except OSError as error:
        raise HpcAgentError(f"{path}: {error.strerror or error}") from error
