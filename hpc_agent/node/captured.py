"""The files into which Dagster captures what a step prints.

``LocalComputeLogManager`` (dagster/_core/storage/local_compute_log_manager.py) appends to
``KEY/PARTS.out`` and ``.err`` below its directory, and makes ``.complete`` when the step has ended.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

from .bodies import CHUNK_BYTES
from .job_files import open_regular

# stdout first: the control plane takes the end of stderr for the end of both.
STREAMS = (("stdout", ".out"), ("stderr", ".err"))
_COMPLETE = ".complete"
# User code may leave anything there, and is not to keep this program busy with it.
_MOST_FILES = 20_000


@dataclass(frozen=True)
class Captured:
    """What was captured of one stream so far; ``key`` is what the control plane calls it."""

    key: Tuple[str, ...]
    stream: str
    path: str
    size: int
    changed_ns: int
    is_complete: bool

    @property
    def name(self) -> str:
        return "%s of %s" % (self.stream, "/".join(self.key))


def captured_below(directory: str) -> List[Captured]:
    """List what is there; a directory that is not there holds nothing."""
    found: List[Captured] = []
    seen = 0
    for parent, _, names in os.walk(directory):
        seen += len(names)
        if seen > _MOST_FILES:
            break
        endings = dict(STREAMS).values()
        stems = {stem for stem, ending in map(os.path.splitext, names) if ending in endings}
        for stem in sorted(stems):
            path = os.path.join(parent, stem)
            relative = os.path.relpath(path, directory)
            if not relative.isprintable():  # none of Dagster's: no text, or with line breaks
                continue
            key = tuple(relative.split(os.sep))
            is_complete = stem + _COMPLETE in names
            for stream, ending in STREAMS:
                state = _state(path + ending)
                if state is not None:
                    size, changed_ns = state
                    found.append(
                        Captured(key, stream, path + ending, size, changed_ns, is_complete)
                    )
    return found


def remove(key_path: str) -> None:
    """Remove all that was captured under a key: it is uploaded."""
    for ending in (".out", ".err", _COMPLETE):
        with contextlib.suppress(OSError):
            os.unlink(key_path + ending)


def chunks(path: str, size: int, end: bytes = b"") -> Iterator[bytes]:
    """Yield the first bytes of a file, as many as were announced, and ``end``. Raises OSError."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        while size > 0:
            chunk = file.read(min(CHUNK_BYTES, size))
            if not chunk:
                raise OSError("%s has become shorter" % path)
            size -= len(chunk)
            yield chunk
    if end:
        yield end


def _state(path: str) -> Optional[Tuple[int, int]]:
    """Return size and time of change of a regular file, None where there is none."""
    try:
        state = os.lstat(path)
    except OSError:
        return None
    return (state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None
