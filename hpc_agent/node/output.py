"""What the child prints, written to the job directory as its disk allows.

The child prints into pipes: a file of the job directory that refuses a write would be an error of
whoever prints, and end a run for a disk that is full for some seconds.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from typing import Dict, List, Optional

from .disk import RETRY_SECONDS
from .job_files import open_output
from .journal import log

_READ_BYTES = 1 << 16
_HELD_BYTES = 1 << 20  # of one stream, while its file takes nothing; then the oldest goes
_CLOSE_SECONDS = 10.0


class Output:
    """The child's standard output and error: one thread carries both from pipes to their files."""

    def __init__(self, job_dir: str, tail_bytes: int) -> None:
        """Open the files ``stdout`` and ``stderr`` to be appended to. Raises OSError."""
        self._is_closed = False
        self._open: List[_Stream] = []
        try:
            self._stdout = self._opened(job_dir, "stdout", 0)
            self._stderr = self._opened(job_dir, "stderr", tail_bytes)
            self._ended, self._end = os.pipe()
        except OSError:
            self._close_streams()
            raise
        self._thread = threading.Thread(target=self._carry, name="output", daemon=True)

    @property
    def sinks(self) -> List[int]:
        """The descriptors that the child gets as its standard output and error."""
        return [self._stdout.sink, self._stderr.sink]

    def start(self) -> None:
        """Carry, once the child has its ends of the pipes; here they are closed."""
        self._stdout.close_sink()
        self._stderr.close_sink()
        self._thread.start()

    def stderr_tail(self) -> str:
        """Return the last of what the child has written to its standard error; after ``close``."""
        return self._stderr.last_lines().decode("utf-8", "replace")

    def close(self) -> None:
        """Write what is left, though a process that has left the child's group may go on."""
        if self._is_closed:
            return
        self._is_closed = True
        os.close(self._end)
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():  # otherwise a file system is mute, and this job ends
            os.close(self._ended)
            self._close_streams()

    def _opened(self, job_dir: str, name: str, tail_bytes: int) -> "_Stream":
        stream = _Stream(name, open_output(os.path.join(job_dir, name)), tail_bytes)
        self._open.append(stream)
        return stream

    def _close_streams(self) -> None:
        for stream in self._open:
            stream.close()

    def _carry(self) -> None:
        streams: Dict[int, _Stream] = {stream.source: stream for stream in self._open}
        is_over = False
        with selectors.DefaultSelector() as selector:
            for source in [*streams, self._ended]:
                selector.register(source, selectors.EVENT_READ)
            while streams:
                ready = [key.fd for key, _ in selector.select(self._patience(is_over))]
                if is_over and not ready:
                    return
                if self._ended in ready:
                    is_over = True
                    selector.unregister(self._ended)
                for source in streams.keys() & ready:
                    if not streams[source].take():
                        selector.unregister(source)
                        del streams[source]
                for stream in self._open:
                    stream.write()

    def _patience(self, is_over: bool) -> Optional[float]:
        if is_over:
            return 0.0
        return RETRY_SECONDS if any(stream.holds for stream in self._open) else None


class _Stream:
    """One pipe and the file that it goes to."""

    def __init__(self, name: str, file: int, tail_bytes: int) -> None:
        """Take the file, and make a pipe. Raises OSError."""
        self._name = name
        self._file = file
        self._held = bytearray()
        self._lost = 0
        self._told = ""
        self._tail_bytes = tail_bytes
        self._tail = bytearray()
        self._is_cut = False
        try:
            self.source, self.sink = os.pipe()
        except OSError:
            os.close(file)
            raise

    @property
    def holds(self) -> bool:
        """Whether something waits for the disk."""
        return bool(self._held)

    def take(self) -> bool:
        """Take what is in the pipe; return False where nobody writes any more."""
        chunk = os.read(self.source, _READ_BYTES)
        self._held += chunk
        self._tail += chunk
        if len(self._tail) > self._tail_bytes:
            del self._tail[: -self._tail_bytes or len(self._tail)]
            self._is_cut = True
        return bool(chunk)

    def last_lines(self) -> bytes:
        """Return the end of what was written: whole lines, unless the last is longer than that."""
        _, newline, lines = self._tail.partition(b"\n")
        return bytes(lines if self._is_cut and newline and lines else self._tail)

    def write(self) -> None:
        """Write what is held, or as much as the disk takes."""
        try:
            if self._lost:
                self._write(bytearray(b"\n[hpc-agent: %d bytes are missing here]\n" % self._lost))
                self._lost = 0
            self._write(self._held)
        except OSError as error:
            self._bear(error)

    def close_sink(self) -> None:
        """Close the end that is the child's."""
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

    def close(self) -> None:
        """Close all of it."""
        self.write()
        if self._held:
            log("%d bytes of %s could not be written" % (len(self._held) + self._lost, self._name))
        self.close_sink()
        os.close(self.source)
        with contextlib.suppress(OSError):  # a remote disk may say here that it is full
            os.close(self._file)

    def _write(self, content: bytearray) -> None:
        while content:
            del content[: os.write(self._file, content)]

    def _bear(self, error: OSError) -> None:
        if str(error) != self._told:
            self._told = str(error)
            log("waiting: cannot write %s: %s" % (self._name, error))
        excess = len(self._held) - _HELD_BYTES
        if excess > 0:
            del self._held[:excess]
            self._lost += excess
