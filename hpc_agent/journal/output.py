"""The output of a child process, kept in files that rotate.

A child that has a file open goes on with it, whatever it is renamed to. So it writes into a pipe,
which a thread empties: a busy event loop holds nobody up.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from pathlib import Path

from hpc_agent.journal.files import PrivateFileHandler, Rotation

_LONGEST_LINE = 64 << 10
# What the kernel gives to every user (pipe(7), /proc/sys/fs/pipe-max-size).
_PIPE_BYTES = 1 << 20
_LAST_WORDS_SECONDS = 5.0


class OutputFile:
    """Keeps, line by line, what is written into ``descriptor`` by one child after the other."""

    def __init__(self, path: Path, rotation: Rotation) -> None:
        """Open file and pipe. Raises OSError."""
        self._handler = PrivateFileHandler(path, rotation)
        reading, self.descriptor = os.pipe()
        with contextlib.suppress(OSError):  # all of this user's pipes together have their limit
            fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._thread = threading.Thread(
            target=self._copy, args=(reading,), name=f"output {path.name}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Wait for the last words; blocks for some seconds where somebody has the pipe open yet."""
        os.close(self.descriptor)
        self._thread.join(_LAST_WORDS_SECONDS)

    def _copy(self, reading: int) -> None:
        with open(reading, encoding="utf-8", errors="backslashreplace", newline="\n") as pipe:
            while line := pipe.readline(_LONGEST_LINE):
                text = line.removesuffix("\n")
                self._handler.emit(logging.makeLogRecord({"msg": "%s", "args": (text,)}))
        self._handler.close()
