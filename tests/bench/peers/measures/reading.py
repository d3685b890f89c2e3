"""What a run worker asks of file systems until it has done nothing: strace(1) counts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.bench.peers.rows import Row, row_of
from tests.bench.peers.runners.runner import Place, Runner

PART = "file systems"
_TRACE = "trace."
_READ = re.compile(r"(?:\bp?read(?:64)?\(| p?read(?:64)? resumed>).* = (\d+)$")
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\(")
_READS = frozenset({"read", "pread64"})


def reading(runner: Runner, place: Place) -> list[Row]:
    """Run twice, since the first run may compile, and count the second."""
    runner.wait([runner.launch()])
    before = {path: path.stat().st_size for path in _traces(place)}
    runner.wait([runner.launch()])
    traces = [path.read_bytes()[before.get(path, 0) :] for path in _traces(place)]
    lines = [line for trace in traces for line in trace.decode(errors="replace").splitlines()]
    name = runner.name
    return [
        row_of(PART, "a run: metadata calls", name, "", [metadata_calls(lines)]),
        row_of(PART, "a run: read", name, "MB", [bytes_read(lines) / 1e6]),
    ]


def _traces(place: Place) -> list[Path]:
    return list(place.directory.glob(f"{_TRACE}*"))


def traced_python(place: Place, python: str) -> Path:
    """Write a Python that traces run workers and what forks them; all else runs as ever."""
    wrapper = place.directory / "python"
    calls = "trace=%file,getdents64,read,pread64"
    # -D: the process that is traced stays the child of whoever has started it.
    trace = f"strace -D -f -qq -e {calls} -o {place.directory}/{_TRACE}$$"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *execute_run*|*--template*) exec {trace} {python} "$@" ;; esac\n'
        f'exec {python} "$@"\n'
    )
    wrapper.chmod(0o755)
    return wrapper


def metadata_calls(lines: Iterable[str]) -> int:
    """Return how many calls were about names and not about what is in files."""
    called = (_CALL.match(line) for line in lines)
    return sum(1 for call in called if call and call[1] not in _READS)


def bytes_read(lines: Iterable[str]) -> int:
    """Return what all calls of read have returned."""
    return sum(int(read[1]) for read in map(_READ.search, lines) if read)
