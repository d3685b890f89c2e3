"""Tools of others: each runs its own program in the peers' environment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from functools import partial
from pathlib import Path

from tests.bench.peers.environment import PeerMissingError, Peers
from tests.bench.peers.rows import last_line
from tests.bench.peers.runners.runner import Place

_PROGRAMS = Path(__file__).parent.parent / "programs"
_START_SECONDS = 120.0


def _with_peer(name: str, program: str, place: Place, count: int) -> float:
    """Return the seconds that the program has measured. Raises PeerMissingError."""
    peers = Peers()
    peers.prepare(name)
    argv = [str(peers.python), str(_PROGRAMS / program), str(count), str(place.directory)]
    seconds = _START_SECONDS + 2 * count
    # Peers find their own programs on PATH.
    path = f"{peers.python.parent}{os.pathsep}{place.cluster.environment['PATH']}"
    environment = {**place.cluster.environment, "PATH": path, "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        argv, env=environment, cwd=place.directory, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        printed, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise PeerMissingError(f"it has not done with {count} tasks in {seconds:.0f} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has left behind
        process.wait()
    if process.returncode != 0:
        raise PeerMissingError(f"it ended with {process.returncode}: {last_line(said)}")
    return float(json.loads(printed.splitlines()[-1])["seconds"])


submitit = partial(_with_peer, "submitit", "with_submitit.py")
dask_jobqueue = partial(_with_peer, "dask-jobqueue", "with_dask_jobqueue.py")
parsl = partial(_with_peer, "parsl", "with_parsl.py")
hyperqueue = partial(_with_peer, "hyperqueue", "with_hyperqueue.py")
