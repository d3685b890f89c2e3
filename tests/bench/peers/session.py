"""The whole of it: who is measured, in which order, and by what."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.bench.peers import gateway_load
from tests.bench.peers.beyond import beyond
from tests.bench.peers.contest import Tasks, of_gateway, of_restarts, of_runner, of_tasks
from tests.bench.peers.extent import Extent
from tests.bench.peers.measures.compute_logs import compute_logs
from tests.bench.peers.measures.cost import cost
from tests.bench.peers.measures.events import events
from tests.bench.peers.measures.launches import launches
from tests.bench.peers.measures.own_jobs import commands, steps
from tests.bench.peers.measures.reading import reading
from tests.bench.peers.measures.round_trips import round_trips
from tests.bench.peers.report import Report, report_of
from tests.bench.peers.rows import MACHINE, Row, missing, row_of
from tests.bench.peers.runners import bare, ours, plain, stock
from tests.bench.peers.runners.runner import Place
from tests.bench.peers.tasks import bare as by_hand
from tests.bench.peers.tasks import peer
from tests.cluster import cluster_tool, start_cluster

Say = Callable[[str], None]
Way = Callable[[Place], list[Row]]

_SERVED = (launches, round_trips, events, compute_logs)
_WITH_AGENT = (*_SERVED, cost)
RUNNERS: Mapping[str, Way] = {
    ours.POOL: partial(of_runner, ours.POOL, ours.pool, _WITH_AGENT),
    ours.JOBS: partial(of_runner, ours.JOBS, ours.jobs, _WITH_AGENT),
    stock.NAME: partial(of_runner, stock.NAME, stock.stock, _WITH_AGENT),
    bare.NAME: partial(of_runner, bare.NAME, bare.bare, (launches,)),
    plain.NAME: partial(of_runner, plain.NAME, plain.plain, _SERVED),
}
MORE: Mapping[str, Way] = {
    ours.STEPS: partial(of_runner, ours.STEPS, ours.steps, (commands, steps)),
    f"{bare.NAME}, traced": partial(of_runner, bare.NAME, bare.traced_bare, (reading,)),
    f"{ours.JOBS}, traced": partial(of_runner, ours.JOBS, ours.traced_jobs, (reading,)),
    f"{ours.POOL}, traced": partial(of_runner, ours.POOL, ours.traced_pool, (reading,)),
}
AGENT = "our agent"
GATEWAYS = {"SQLite": gateway_load.on_sqlite, "PostgreSQL": gateway_load.on_postgres}
TASKS: Mapping[str, Tasks] = {
    "sbatch loop": by_hand.sbatch_loop,
    "job array": by_hand.job_array,
    "submitit": peer.submitit,
    "dask-jobqueue": peer.dask_jobqueue,
    "parsl": peer.parsl,
    "HyperQueue": peer.hyperqueue,
}


def measure(
    extent: Extent, say: Say, *, only: Sequence[str] = (), minutes: float = math.inf
) -> Report:
    """Measure all contestants, or ``only`` those, on a Slurm with accounting, as sites have it.

    Nobody's turn begins after so many ``minutes``: whoever had none is told.

    Raises NoClusterError where there can be none.
    """
    measured = {name: way for name, way in _contestants().items() if not only or name in only}
    with tempfile.TemporaryDirectory(prefix="hpc-slurm-", ignore_cleanup_errors=True) as path:
        directory = Path(path) / "s"
        say("Starting a Slurm cluster of two nodes with accounting")
        busy = os.getloadavg()[1]
        cluster = start_cluster(directory, accounting=True)
        place = Place(directory=directory, cluster=cluster, extent=extent, say=say)
        try:
            rows = turns(measured, place, until=time.monotonic() + minutes * 60)
        finally:
            cluster_tool("down", directory=directory)
    if not only:
        rows += beyond(rows, extent, say)
    return report_of(extent.name, rows, slurm=cluster.version, busy=busy)


def turns(ways: Mapping[str, Way], place: Place, *, until: float) -> list[Row]:
    """Measure one contestant after the other, as long as ``until`` (monotonic) lets turns begin."""
    rows: list[Row] = []
    for name, way in ways.items():
        if time.monotonic() > until:
            rows.append(missing("not measured", "the session's time was over", name, "no turn"))
            continue
        busy = os.getloadavg()[0]
        rows += [
            *way(place),
            row_of(MACHINE, "processes at work as the turn began", name, "", [busy]),
        ]
    return rows


def _contestants() -> dict[str, Way]:
    """Return everybody in the order of their turns, by the names of the tables."""
    tools = {name: partial(of_tasks, name, tasks) for name, tasks in TASKS.items()}
    gateways = {name: partial(of_gateway, name, opened) for name, opened in GATEWAYS.items()}
    again = {AGENT: partial(of_restarts, AGENT)}
    return {**RUNNERS, **tools, **gateways, **MORE, **again}
