"""The artifacts of runs on the shared file system: how much there is, and what is too old.

Dagster's ``LocalArtifactStorage`` keeps them in ``storage`` of its directory, which is one for each
deployment and code location (``AgentConfig.artifacts_of``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OF_DAGSTER = "*/*/storage"
_MOST_COUNTED = 200_000
_MOST_REMOVED = 20_000  # at a time: a parallel file system feels more than that


@dataclass(frozen=True, slots=True)
class Usage:
    """Files and bytes; of very many only the first are counted, and ``is_all`` is False."""

    files: int
    size_bytes: int
    is_all: bool = True


def usage_of(directory: Path) -> Usage:
    """Count the artifacts of all locations. Blocking."""
    counted = list(itertools.islice(_files(directory), _MOST_COUNTED + 1))
    sizes = [state.st_size for _, state in counted[:_MOST_COUNTED]]
    return Usage(len(sizes), sum(sizes), is_all=len(counted) <= _MOST_COUNTED)


def remove_unused(directory: Path, *, before: float) -> int:
    """Remove artifacts that were last written and read before a time of day; return how many.

    Files beside those of Dagster's storage are not touched. Blocking.
    """
    old = (
        path
        for path, state in _files(directory)
        if max(state.st_mtime, state.st_atime, state.st_ctime) < before
    )
    removed = 0
    for path in list(itertools.islice(old, _MOST_REMOVED)):
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
            path.parent.rmdir()
    return removed


def _files(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for storage in directory.glob(_OF_DAGSTER):
        for parent, _, names in os.walk(storage):
            for name in names:
                path = Path(parent, name)
                with contextlib.suppress(OSError):
                    state = path.lstat()
                    if stat.S_ISREG(state.st_mode):
                        yield path, state
