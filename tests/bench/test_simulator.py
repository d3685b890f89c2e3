"""The simulator is right where the answer is known."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from tests.bench.peers.beyond import beyond, check
from tests.bench.peers.extent import QUICK
from tests.bench.peers.rows import row_of
from tests.bench.peers.simulator import (
    SECONDS_A_DAY,
    Clock,
    Fleet,
    Recorded,
    Station,
    closed_loop,
    simulate,
)

QUIET = Recorded(gateway=0.001, submit=0.1, start=2.0, work=1.0)


def test_station_serves_in_order() -> None:
    """Two places, three that come at once: the third waits for the first."""
    clock, ended = Clock(), list[tuple[str, float]]()
    station = Station(clock, 2)
    for name, seconds in (("a", 1.0), ("b", 3.0), ("c", 1.0)):
        station.serve(seconds, lambda name=name: ended.append((name, clock.now)))  # type: ignore[misc]
    clock.run(10)
    assert ended == [("a", 1.0), ("c", 2.0), ("b", 3.0)]
    assert station.busy_seconds == 5.0


@pytest.mark.parametrize(("agents", "rate"), [(1, 10.0), (2, 20.0), (100, 50.0)])
def test_closed_loop_obeys_its_laws(agents: int, rate: float) -> None:
    """As many as agents can ask, at most as many as the gateway can answer."""
    found = closed_loop(agents, 0.02, 0.08, seconds=50)
    assert found == pytest.approx(rate, rel=0.02)


def test_idle_fleet_starts_runs_in_the_times_of_its_parts() -> None:
    """Nobody waits for anybody."""
    fleet = Fleet(agents=10, slots=10, gateways=2, runs_a_day=1000)
    outcome = simulate(fleet, QUIET, hours=24)
    assert statistics.median(outcome.starts) == pytest.approx(2.1, abs=0.02)
    assert len(outcome.starts) == pytest.approx(1000, rel=0.1)


def test_busy_gateway_waits_as_a_queue_does() -> None:
    """It is busy by the load that is offered; above its capacity starts are ever later."""
    slow = replace(QUIET, gateway=0.05)
    half = 0.5 * SECONDS_A_DAY / (slow.gateway * 14)
    fleet = Fleet(agents=1, slots=10_000, gateways=1, runs_a_day=half)
    assert simulate(fleet, slow, hours=0.3).gateway_busy == pytest.approx(0.5, abs=0.08)
    outcome = simulate(replace(fleet, runs_a_day=4 * half), slow, hours=0.1)
    assert outcome.gateway_busy > 0.95
    assert outcome.starts[-1] > outcome.starts[20] + 10


def test_few_slots_make_runs_wait() -> None:
    """Two runs at a time on one node: the rest is in the queue."""
    fleet = Fleet(agents=1, slots=2, gateways=1, runs_a_day=SECONDS_A_DAY)
    assert simulate(fleet, QUIET, hours=0.1).starts[-1] > 60


def test_measured_points_are_told_beside_the_simulated() -> None:
    """Those between the extremes, which the model is made of."""
    measured, simulated = check("SQLite", {1: 10.0, 2: 19.0, 100: 50.0})
    assert measured.median == 19.0
    assert simulated.median == pytest.approx(20.0, rel=0.02)
    assert check("SQLite", {1: 10.0}) == []


def test_fleet_needs_what_was_measured() -> None:
    """Who was not measured is told; who was is simulated with each number of gateways."""
    rows = [
        row_of("gateway", "requests answered, 100 agents", "PostgreSQL", "/s", [1000.0]),
        *(
            row_of("launch", f"one at a time: {moment}", "our jobs", "s", [at])
            for moment, at in (("submitted", 0.1), ("first event", 3.0), ("finished", 4.0))
        ),
    ]
    told = beyond(rows, replace(QUICK, simulated_hours=0.002), lambda _: None)
    assert told[0].reason == "its times were not measured"
    assert [row.contestant.partition(" gateway")[0] for row in told[1:]] == [
        f"our jobs, {gateways}" for gateways in (1, 2, 4, 8)
    ]
