"""Events that a run writes one after the other: each waits until it is stored."""

from __future__ import annotations

from itertools import pairwise

from tests.bench.peers.rows import Row, row_of
from tests.bench.peers.runners.runner import Place, Served

PART = "events"


def events(runner: Served, place: Place) -> list[Row]:
    """Return how long an event keeps the code that tells of it."""
    config = {"ops": {"tell": {"config": {"count": place.extent.events}}}}
    run_id = runner.launch("telling", config)
    runner.wait([run_id])
    told = [
        float(event["timestamp"])
        for event in runner.webserver.events(run_id)
        if (event.get("message") or "").startswith("event ")
    ]
    each = [after - before for before, after in pairwise(told)]
    return [row_of(PART, "one event written", runner.name, "ms", each)]
