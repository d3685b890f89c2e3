"""Appending to the audit log, from several processes at once."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hpc_agent.control_plane.audit.entry import Entry

MAX_FILE_BYTES = 16 << 20
OLD_FILES = 9

logger = logging.getLogger(__name__)


class AuditLog:
    """``audit.log``, and ``audit.log.1`` … with what was before; mode 0600."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes

    def append(self, *entries: Entry) -> None:
        """Write entries, each whole or not at all.

        A disk that refuses them stops nobody's work: then they are in the log of this process.
        """
        for entry in entries:
            line = entry.line()
            try:
                with self._locked():
                    self._rotate(len(line))
                    self._write(line)
            except OSError as error:
                logger.error("cannot write %s (%s): %s", self._path, error, line.decode().strip())  # noqa: TRY400

    async def note(self, *entries: Entry) -> None:
        """Do the same for the event loop."""
        if entries:
            await asyncio.to_thread(self.append, *entries)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with _opened(self._path.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _rotate(self, more: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size + more <= self._max_bytes:
                return
            names = [self._path, *old_files(self._path)]
            for newer, older in reversed(list(itertools.pairwise(names))):
                with contextlib.suppress(FileNotFoundError):
                    newer.replace(older)

    def _write(self, line: bytes) -> None:
        with _opened(self._path) as file:
            before = os.fstat(file).st_size
            if os.write(file, line) < len(line):
                os.ftruncate(file, before)  # half a line would spoil the next one
                raise OSError("there was room for a part of the line only")


def old_files(path: Path) -> list[Path]:
    """Return the names of the older files, the newest of them first."""
    return [path.with_name(f"{path.name}.{number}") for number in range(1, OLD_FILES + 1)]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    try:
        status, owner = os.fstat(file), path.parent.stat().st_uid
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in {os.geteuid(), owner}:
            raise OSError(f"{path} is not a file of ours")
        os.fchmod(file, 0o600)
        if os.geteuid() == 0 and status.st_uid != owner:
            os.fchown(file, owner, -1)  # a command of root must not lock the control plane out
        yield file
    finally:
        os.close(file)
