"""What the process between control plane and runs costs the machine that it lives on."""

from __future__ import annotations

import re
import subprocess
import time

import psutil

from tests.bench.peers.rows import Row, row_of
from tests.bench.peers.runners.runner import Place, Served

PART = "agent"
_RUNS_AN_HOUR = 100
_RPC = re.compile(r"^\s*root\s.*count:(\d+)", re.MULTILINE)


def cost(runner: Served, place: Place) -> list[Row]:
    """Look at an idle agent, then at one that is given runs, and reckon an hour of both."""
    assert runner.agent_pid is not None
    process = psutil.Process(runner.agent_pid)
    seconds, extent = place.extent.idle_seconds, place.extent
    rpcs, used = _rpcs(place), _cpu(process)
    time.sleep(seconds)
    an_hour = (_cpu(process) - used) * 3600 / seconds
    asked = (_rpcs(place) - rpcs - 1) * 60 / seconds  # one of them is the question itself
    began, used = time.monotonic(), _cpu(process)
    for _ in range(extent.singles):
        runner.wait([runner.launch()])
    own = _cpu(process) - used - an_hour * (time.monotonic() - began) / 3600
    busy = an_hour + max(own, 0.0) / extent.singles * _RUNS_AN_HOUR
    memory = process.memory_info().rss / 1e6
    name = runner.name
    return [
        row_of(PART, "idle: CPU an hour", name, "s", [an_hour]),
        row_of(PART, f"{_RUNS_AN_HOUR} runs an hour: CPU an hour", name, "s", [busy]),
        row_of(PART, "memory", name, "MB", [memory]),
        row_of(PART, "idle: requests to Slurm a minute", name, "", [asked]),
    ]


def _cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of its children that have ended."""
    return sum(process.cpu_times()[:4])


def _rpcs(place: Place) -> int:
    """Return how many requests of users slurmctld has answered, as sdiag counts them."""
    shown = subprocess.run(
        ["sdiag"], env=place.cluster.environment, capture_output=True, text=True, check=True
    ).stdout
    return sum(map(int, _RPC.findall(shown.partition("statistics by user")[2])))
