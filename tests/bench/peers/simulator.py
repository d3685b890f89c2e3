"""Agents, gateways and clusters as queues: what happens on more machines than there are here.

A discrete-event simulation. Times of service are those that this session has recorded; what comes
out is checked against the points that were measured, and then asked for those that cannot be.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

SECONDS_A_DAY = 86_400
HEARTBEAT_SECONDS = 30.0
REQUESTS_BEFORE_START = 4
"""Of a run: it is handed out, answered, told as submitted, and claimed by its worker."""
REQUESTS_AFTER_START = 10
"""Events of the smallest run, each a request."""

Then = Callable[[], None]


class Clock:
    """What is due, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Then]] = []
        self._number = itertools.count()

    def after(self, seconds: float, then: Then) -> None:
        """Do something later."""
        heapq.heappush(self._due, (self.now + seconds, next(self._number), then))

    def run(self, until: float) -> None:
        """Do all that is due until a time."""
        while self._due and self._due[0][0] <= until:
            self.now, _, then = heapq.heappop(self._due)
            then()
        self.now = until


@dataclass(slots=True)
class Station:
    """Places with one queue before them: first come, first served."""

    clock: Clock
    places: int
    busy_seconds: float = 0.0
    _waiting: deque[Then] = field(default_factory=deque)

    def take(self, then: Then) -> None:
        """Go on as soon as there is a place."""
        if self.places:
            self.places -= 1
            then()
        else:
            self._waiting.append(then)

    def give_back(self) -> None:
        """Leave the place to the next."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self.places += 1

    def serve(self, seconds: float, then: Then) -> None:
        """Take a place for so many seconds, and go on when they are over."""

        def done() -> None:
            self.give_back()
            then()

        def begin() -> None:
            self.busy_seconds += seconds
            self.clock.after(seconds, done)

        self.take(begin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Seconds, as they were measured: of the gateway for a request, of a run on its way."""

    gateway: float
    submit: float
    start: float
    work: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Seconds from launch to first event of each run, and the share of time gateways were busy."""

    starts: list[float]
    gateway_busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """So many agents with clusters of so many slots each, and gateways over one database."""

    agents: int
    slots: int
    gateways: int
    runs_a_day: float


def simulate(fleet: Fleet, recorded: Recorded, *, hours: float, seed: int = 1) -> Outcome:
    """Let runs arrive at random, spread over the agents, for so many hours."""
    simulation = _Simulation(fleet, recorded, random.Random(seed))  # noqa: S311 - no secret
    return simulation.run(hours * 3600)


class _Simulation:
    """The way of each run: gateway, agent, cluster, gateway."""

    def __init__(self, fleet: Fleet, recorded: Recorded, dice: random.Random) -> None:
        self._recorded = recorded
        self._dice = dice
        self._clock = Clock()
        self._gateways = fleet.gateways
        self._gateway = Station(self._clock, fleet.gateways)
        self._sites = [
            (Station(self._clock, 1), Station(self._clock, fleet.slots))
            for _ in range(fleet.agents)
        ]
        self._runs_a_second = fleet.runs_a_day / SECONDS_A_DAY
        self._starts: list[float] = []

    def run(self, seconds: float) -> Outcome:
        for _ in self._sites:
            self._clock.after(self._dice.uniform(0, HEARTBEAT_SECONDS), self._beat)
        self._clock.after(0, self._arrive)
        self._clock.run(seconds)
        busy = self._gateway.busy_seconds / (seconds * self._gateways)
        return Outcome(starts=self._starts, gateway_busy=busy)

    def _beat(self) -> None:
        self._clock.after(HEARTBEAT_SECONDS, self._beat)
        self._ask(1, lambda: None)

    def _arrive(self) -> None:
        self._clock.after(self._dice.expovariate(self._runs_a_second), self._arrive)
        self._launch(*self._dice.choice(self._sites))

    def _launch(self, agent: Station, cluster: Station) -> None:
        launched, recorded, after = self._clock.now, self._recorded, self._clock.after

        def taken() -> None:
            agent.serve(recorded.submit, lambda: cluster.take(on_node))

        def on_node() -> None:
            after(recorded.start, lambda: self._ask(REQUESTS_BEFORE_START - 2, started))

        def started() -> None:
            self._starts.append(self._clock.now - launched)
            self._ask(REQUESTS_AFTER_START, lambda: after(recorded.work, cluster.give_back))

        self._ask(2, taken)

    def _ask(self, requests: int, then: Then) -> None:
        """Ask the gateway so often, one request after the other."""
        if not requests:
            then()
            return
        seconds = self._dice.expovariate(1 / self._recorded.gateway)
        self._gateway.serve(seconds, lambda: self._ask(requests - 1, then))


def closed_loop(agents: int, service: float, between: float, *, seconds: float) -> float:
    """Return the requests a second of agents that ask again as soon as they are answered.

    ``service`` is what the gateway takes for a request, ``between`` what all else takes.
    """
    clock = Clock()
    gateway = Station(clock, 1)
    answered = itertools.count()

    def again() -> None:
        next(answered)
        clock.after(between, ask)

    def ask() -> None:
        gateway.serve(service, again)

    for _ in range(agents):
        clock.after(0, ask)
    clock.run(seconds)
    return next(answered) / seconds
