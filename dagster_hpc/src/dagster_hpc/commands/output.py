"""What a job prints, passed on into the log of the step as it comes."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO

from dagster_hpc.commands.exchange import Exchange
from dagster_hpc.commands.tail import Tail, TailError

LIMIT = 256 << 20
"""Bytes of each stream that are passed on; all of it is in the job's directory."""


class Output:
    """The two streams of a job, on their way to those of this process.

    A process that finds the job again begins with the first byte: Dagster shows the log of the
    last process of a step, which is to have all.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._streams = (_Stream(exchange.stdout), _Stream(exchange.stderr))

    def pass_on(self) -> bool:
        """Pass a chunk of each on; return whether there was anything."""
        out, err = self._streams
        # Both, whatever the first says.
        return any([out.pass_on(sys.stdout), err.pass_on(sys.stderr)])


class _Stream:
    def __init__(self, path: str) -> None:
        self._tail = Tail(path)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_over = False

    def pass_on(self, stream: TextIO) -> bool:
        if self._is_over:
            return False
        try:
            content = self._tail.read()
        except TailError as error:
            self._end(stream, str(error))
            return False
        stream.write(self._decoder.decode(content))
        stream.flush()
        if self._tail.offset > LIMIT:
            self._end(stream, f"more than {LIMIT >> 20} MiB; all of it is in {self._tail.path}")
        return bool(content)

    def _end(self, stream: TextIO, words: str) -> None:
        self._is_over = True
        stream.write(f"\n[output of the job: {words}]\n")
