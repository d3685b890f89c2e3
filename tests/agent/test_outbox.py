"""The report loop: in order, until it is taken, once."""

from __future__ import annotations

import json

import pytest
from sqlite_utils import Database

from hpc_agent.agent.report import ReportLoop
from hpc_agent.errors import ControlPlaneError, ControlPlaneUnavailableError
from hpc_agent.store import outbox
from tests.agent.conftest import Bench


async def put_events(bench: Bench, run: str, count: int) -> None:
    """Put events of a run into the outbox."""

    def add(db: Database) -> None:
        for number in range(count):
            outbox.add(
                db,
                kind=outbox.EVENT,
                deployment="prod",
                order_key=run,
                idempotency_key=f"{run}-{number}",
                payload=json.dumps({"runId": run, "number": number}),
                now=1.0,
            )

    await bench.context.store.run(add)


def numbers(bench: Bench, run: str) -> list[int]:
    """Return the numbers of a run's events in the order of their arrival."""
    arrived = [
        json.loads(request.body)["variables"]["eventRecord"]
        for request in bench.control_plane.requests
        if request.path == "/graphql"
    ]
    return [event["number"] for event in arrived if event["runId"] == run]


async def test_events_of_a_run_arrive_in_order(bench: Bench) -> None:
    """Runs do not wait for each other; within a run nothing overtakes."""
    await put_events(bench, "a", 20)
    await put_events(bench, "b", 20)
    await ReportLoop(bench.context).step()
    assert numbers(bench, "a") == numbers(bench, "b") == list(range(20))
    assert await bench.context.store.run(outbox.count_waiting) == 0


async def test_nothing_is_lost_while_the_control_plane_is_away(bench: Bench) -> None:
    """The message stays, and goes under the same key."""
    await put_events(bench, "a", 2)
    loop = ReportLoop(bench.context)
    bench.control_plane.status = 503
    with pytest.raises(ControlPlaneUnavailableError):
        await loop.step()
    assert await bench.context.store.run(outbox.count_waiting) == 2
    bench.control_plane.status = 200
    await loop.step()
    keys = [request.headers["idempotency-key"] for request in bench.control_plane.requests]
    assert keys == ["a-0", "a-0", "a-1"]


async def test_message_that_nobody_wants_is_set_aside(bench: Bench) -> None:
    """It blocks what is behind it for a few tries, not for ever, and is kept with the reason."""
    await put_events(bench, "a", 1)
    loop = ReportLoop(bench.context)
    bench.control_plane.status = 400
    for _ in range(2):
        with pytest.raises(ControlPlaneError):
            await loop.step()
    await loop.step()
    assert await bench.context.store.run(outbox.count_waiting) == 0
    row = await bench.context.store.run(
        lambda db: db.execute("SELECT refused FROM outbox").fetchone()
    )
    assert "HTTP 400" in row[0]
