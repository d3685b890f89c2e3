"""Restart to serving, with ever more jobs that the agent tracks, and how that grows."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.bench.peers.rows import Row, exponent, row_of
from tests.bench.peers.runners.runner import Place
from tests.bench.scale import NO_BUCKET, TrackingAgent, opened

PART = "restart"


def restarts(name: str, place: Place) -> list[Row]:
    """Start an agent anew that has jobs in the queue, beside a stand-in of its control plane."""
    found: dict[float, float] = {}
    rows: list[Row] = []
    with opened(Path(place.cluster.slurm_conf), place.directory / "restarts") as bench:
        for count in place.extent.tracked:
            place.say(f"restart with {count:,} jobs")
            agent = TrackingAgent(bench, f"restart-{count}", **NO_BUCKET)
            asyncio.run(agent.enqueue(count))
            agent.start()
            try:
                if count:
                    agent.wait_submitted(count)
                agent.stop()
                found[count] = agent.start()
            finally:
                agent.stop()
                bench.clear()
            measure = f"{count:,} jobs tracked: start to serving"
            rows.append(row_of(PART, measure, name, "s", [found[count]]))
    grown = {count: seconds for count, seconds in found.items() if count}
    if len(grown) > 1:
        rows.append(row_of(PART, "exponent of the growth", name, "", [exponent(grown)]))
    return rows
