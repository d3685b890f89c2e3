"""What a job prints, passed on into the log of the step as it comes."""

from __future__ import annotations

import codecs
import sys
import time
from pathlib import Path
from typing import TextIO

from dagster_hpc.commands.tail import PAUSE, Tail, TailError

LIMIT = 256 << 20
"""Bytes of each stream that are passed on; all of it is in the job's directory."""


class Output:
    """The two streams of a job, on their way to those of this process.

    A process that finds the job again begins with the first byte: Dagster shows the log of the
    last process of a step, which is to have all. A job that the agent has begun again writes into
    another directory: what it prints comes behind.
    """

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._streams: list[_Stream] = []

    def pass_on(self, directory: Path) -> bool:
        """Pass on a chunk of what is in this directory; return whether there was anything."""
        if directory != self._directory:
            while self._pass_on():
                pass
            self._directory = directory
            self._streams = [
                _Stream(str(directory / "stdout"), sys.stdout),
                _Stream(str(directory / "stderr"), sys.stderr),
            ]
        return self._pass_on()

    def pass_on_the_rest(self, directory: Path, until: float) -> None:
        """Pass on all that is left, and say so where the file system has refused it up to then."""
        while self.pass_on(directory) or any(each.trouble for each in self._streams):
            for each in self._streams:
                if each.trouble and time.monotonic() >= until:
                    each.give_up()
            if any(each.trouble for each in self._streams):
                time.sleep(PAUSE)

    def _pass_on(self) -> bool:
        passed_on = [each.pass_on() for each in self._streams]
        return any(passed_on)


class _Stream:
    def __init__(self, path: str, sink: TextIO) -> None:
        self._sink = sink
        self._tail = Tail(path)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_over = False

    def pass_on(self) -> bool:
        if self._is_over:
            return False
        try:
            content = self._tail.read()
        except TailError as error:
            self._end(str(error))
            return False
        self._sink.write(self._decoder.decode(content))
        self._sink.flush()
        if self._tail.offset > LIMIT:
            self._end(f"more than {LIMIT >> 20} MiB; all of it is in {self._tail.path}")
        return bool(content)

    @property
    def trouble(self) -> OSError | None:
        """Why nothing has come, when the file system is to blame and may recover.

        A directory that is not there is none: an attempt that never began may have none.
        """
        trouble = self._tail.trouble
        return None if self._is_over or isinstance(trouble, FileNotFoundError) else trouble

    def give_up(self) -> None:
        """Wait for the file system no longer."""
        self._end(f"the rest cannot be read: {self.trouble}")

    def _end(self, words: str) -> None:
        self._is_over = True
        self._sink.write(f"\n[output of the job: {words}]\n")
