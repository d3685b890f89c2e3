"""A log file that does not grow without end: FILE, FILE.1, … FILE.N, for nobody else to read."""

from __future__ import annotations

import logging
import os
import stat
import sys
from dataclasses import dataclass
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """How large a file becomes before it is put away, and how many of those are kept."""

    max_bytes: int = 16 << 20
    keep: int = 4


class PrivateFileHandler(RotatingFileHandler):
    """Appends lines to a file with mode 0600.

    Lines that the disk refuses are lost, and whoever logs goes on: standard error has the reason,
    once, and the file has their number when it can be written again.
    """

    def __init__(self, path: Path, rotation: Rotation) -> None:
        """Open the file. Raises OSError."""
        self._lost = 0
        super().__init__(
            path, maxBytes=rotation.max_bytes, backupCount=rotation.keep, encoding="utf-8",
            errors="backslashreplace",
        )  # fmt: skip

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        lost = self._lost
        super().emit(record)
        if lost and self._lost == lost:
            self._lost = 0
            super().emit(logging.makeLogRecord({"msg": f"{lost} lines before this one are lost"}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Count a line that was refused; called where the reason is at hand."""
        if not self._lost and sys.stderr is not None:
            sys.stderr.write(f"cannot write {self.baseFilename}: {sys.exc_info()[1]}\n")
        self._lost += 1

    def _open(self) -> TextIOWrapper:
        descriptor = _private(self.baseFilename)
        return TextIOWrapper(
            os.fdopen(descriptor, "ab"), encoding=self.encoding, errors=self.errors
        )


def _private(path: str) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)
    return descriptor
