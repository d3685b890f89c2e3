"""``sbatch`` by hand: a loop of single jobs, and one job array."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from hpc_agent.demo.processes import wait_for
from tests.bench.peers.runners.runner import Place

_SCRIPT = "#!/bin/sh\nexec /bin/true\n"
_OPTIONS = ("--parsable", "--export=NIL", "--output=/dev/null", "--mem=20M", "--time=5")
_ARRAY = 1000
"""Below Slurm's own MaxArraySize, 1001."""


def sbatch_loop(place: Place, count: int) -> float:
    """Return the seconds from the first call of sbatch to the end of the last job."""
    script = _script(place.directory)
    began = time.monotonic()
    for _ in range(count):
        _slurm(place, "sbatch", *_OPTIONS, str(script))
    _wait_empty(place, count)
    return time.monotonic() - began


def job_array(place: Place, count: int) -> float:
    """Return the seconds from sbatch to the end of the array's last task."""
    script = _script(place.directory)
    began = time.monotonic()
    for first in range(0, count, _ARRAY):
        array = f"--array=0-{min(_ARRAY, count - first) - 1}"
        _slurm(place, "sbatch", array, *_OPTIONS, str(script))
    _wait_empty(place, count)
    return time.monotonic() - began


def _script(directory: Path) -> Path:
    script = directory / "no_op.sh"
    script.write_text(_SCRIPT)
    return script


def _wait_empty(place: Place, count: int) -> None:
    # Not `--wait`, which looks more and more rarely.
    wait_for(
        "jobs do not end",
        lambda: not _slurm(place, "squeue", "--noheader", "--me"),
        seconds=60 + 2 * count,
    )


def _slurm(place: Place, *argv: str) -> str:
    done = subprocess.run(
        argv, env=place.cluster.environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
