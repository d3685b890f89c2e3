"""Files that somebody else writes: what has come since, by offset, as bytes or as lines."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20
"""Bytes that are read at a time: what a hostile writer may cost in memory."""

LONGEST_LINE = 4 << 20
"""Bytes of a line; a longer one is skipped."""

PAUSE = 1.0
"""Seconds between two looks at a file that the file system refuses for the moment."""

_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("ESTALE", "EIO", "EREMOTEIO", "ENODEV", "ENOTCONN", "ESHUTDOWN", "ETIMEDOUT"),
        *("EHOSTDOWN", "EHOSTUNREACH", "EAGAIN", "EMFILE", "ENFILE", "ENOMEM"),
    )
    if hasattr(errno, name)  # macOS has no EREMOTEIO
)
"""What a file system says that comes back: the file in it is as it was."""


class TailError(Exception):
    """The file is none that can be followed any more; what has been read of it stays read."""


class Tail:
    """Reads on in a regular file, opened anew each time: on NFS that shows what is new.

    ``trouble`` is why the last read had nothing, when the file system is to blame and may recover.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.offset = 0
        self.trouble: OSError | None = None

    def read(self) -> bytes:
        """Return what has come since, a chunk of it at most; nothing of a file that is not there.

        Raises TailError for what is no regular file, and for one that was cut.
        """
        self.trouble = None
        try:
            content = self._chunk()
        except OSError as error:
            if self._is_away(error):
                self.trouble = error
            elif not isinstance(error, FileNotFoundError):
                raise TailError(f"{self.path} cannot be read: {error.strerror}") from None
            return b""
        self.offset += len(content)
        return content

    def _chunk(self) -> bytes:
        # A FIFO in its place is not to hold us up, nor a link to lead elsewhere.
        file = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise TailError(f"{self.path} is no regular file any more")
            if found.st_size < self.offset:
                raise TailError(f"{self.path} was cut to {found.st_size} bytes")
            return os.pread(file, CHUNK, self.offset)
        finally:
            os.close(file)

    def _is_away(self, error: OSError) -> bool:
        if not isinstance(error, FileNotFoundError):
            return error.errno in _PASSING
        try:  # a mount that is gone has taken the directory along
            return not Path(self.path).parent.is_dir()
        except OSError:
            return True


@dataclass(frozen=True)
class Line:
    """One line, counted from 1. ``end`` is the offset behind it; ``content`` None: too long."""

    number: int
    end: int
    content: bytes | None


class LineTail:
    """Reads lines as they come; one that is only half written waits for the rest."""

    def __init__(self, path: str, *, longest: int = LONGEST_LINE) -> None:
        self._tail = Tail(path)
        self._longest = longest
        self._begun = bytearray()
        self._is_too_long = False
        self._number = 0
        self._end = 0

    @property
    def trouble(self) -> OSError | None:
        """Why the last read had nothing, as of ``Tail``."""
        return self._tail.trouble

    def read(self) -> list[Line] | None:
        """Return the lines that a chunk completes; None when nothing has come. Raises TailError."""
        chunk = self._tail.read()
        return list(self._complete(chunk)) if chunk else None

    def last(self) -> Line | None:
        """Return what stands behind the last line's end, when nobody writes any more."""
        return self._finish(0) if self._begun or self._is_too_long else None

    def _complete(self, chunk: bytes) -> Iterator[Line]:
        *ended, begun = chunk.split(b"\n")
        for piece in ended:
            self._append(piece)
            yield self._finish(1)
        self._append(begun)

    def _append(self, piece: bytes) -> None:
        self._end += len(piece)
        self._is_too_long = self._is_too_long or len(self._begun) + len(piece) > self._longest
        if self._is_too_long:
            self._begun.clear()
        else:
            self._begun += piece

    def _finish(self, separator: int) -> Line:
        self._number += 1
        self._end += separator
        content = None if self._is_too_long else bytes(self._begun)
        self._begun.clear()
        self._is_too_long = False
        return Line(self._number, self._end, content)
