"""What the simulator says: first of what was measured, then of a fleet that nobody has here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tests.bench.peers.extent import Extent
from tests.bench.peers.gateway_load import PART as GATEWAY
from tests.bench.peers.gateway_load import requests_of
from tests.bench.peers.rows import Row, missing, row_of, value_of
from tests.bench.peers.simulator import Fleet, Recorded, closed_loop, simulate

PART = "simulated"
RUNS_A_DAY = 1_000_000
AGENTS = 1000
_SLOTS = 64
_GATEWAYS = (1, 2, 4, 8)
_SHARED = "PostgreSQL"
"""What several gateways have in common."""
GATEWAYS = ("SQLite", _SHARED)
_CHECK_SECONDS = 60.0


def beyond(measured: Sequence[Row], extent: Extent, say: Callable[[str], None]) -> list[Row]:
    """Return the start of runs of a large fleet, by the service times of this session."""
    rates = {name: rates_of(measured, extent.agents, name) for name in GATEWAYS}
    rows = [row for name, found in rates.items() for row in check(name, found)]
    measure = f"{AGENTS:,} agents, {RUNS_A_DAY:,} runs a day: launch to first event"
    for contestant in ("our pool", "our jobs"):
        recorded = recorded_of(measured, rates[_SHARED], contestant)
        if recorded is None:
            rows.append(missing(PART, measure, contestant, "its times were not measured"))
            continue
        for gateways in _GATEWAYS:
            say(f"simulation: {contestant}, {gateways} gateways")
            fleet = Fleet(
                agents=AGENTS, slots=_SLOTS, gateways=gateways, runs_a_day=float(RUNS_A_DAY)
            )
            outcome = simulate(fleet, recorded, hours=extent.simulated_hours)
            each = f"gateway{'s' if gateways > 1 else ''} {outcome.gateway_busy:.0%} busy"
            name = f"{contestant}, {gateways} {each}"
            rows.append(row_of(PART, measure, name, "s", outcome.starts))
    return rows


def check(contestant: str, rates: Mapping[int, float]) -> list[Row]:
    """Predict the loads between the extremes from the extremes, beside what was measured.

    One agent alone tells how long a request takes, very many tell how long the gateway does.
    """
    first, *between, last = sorted(rates) if len(rates) > 2 else (0, 0)
    rows = []
    for agents in between:
        gateway, alone = 1 / rates[last], 1 / rates[first]
        others = max(alone - gateway, 0.0)
        predicted = closed_loop(agents, gateway, others, seconds=_CHECK_SECONDS)
        measure = f"{contestant}: {requests_of(agents)}"
        rows += [
            row_of(PART, measure, "measured", "/s", [rates[agents]]),
            row_of(PART, measure, "simulated", "/s", [predicted]),
        ]
    return rows


def rates_of(measured: Sequence[Row], agents: Sequence[int], contestant: str) -> dict[int, float]:
    """Return the requests a second of a gateway, by the number of agents that ask."""
    found = {count: value_of(measured, GATEWAY, requests_of(count), contestant) for count in agents}
    return {count: rate for count, rate in found.items() if rate}


def recorded_of(
    measured: Sequence[Row], rates: Mapping[int, float], contestant: str
) -> Recorded | None:
    """Return the times of a contestant's runs and of the gateway, None where one is missing."""
    submitted, first_event, finished = (
        value_of(measured, "launch", f"one at a time: {moment}", contestant)
        for moment in ("submitted", "first event", "finished")
    )
    if submitted is None or first_event is None or finished is None or not rates:
        return None
    return Recorded(
        gateway=1 / rates[max(rates)],
        submit=submitted,
        start=max(first_event - submitted, 0.0),
        work=max(finished - first_event, 0.0),
    )
