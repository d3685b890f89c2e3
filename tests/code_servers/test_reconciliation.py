"""What is to be started and retired, decided without a store, a clock or a scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from hpc_agent.code_servers.demand import Place
from hpc_agent.code_servers.location_state import LocationState, state_of
from hpc_agent.code_servers.reconciliation import DRAIN_SECONDS, Steps, reconcile
from hpc_agent.code_servers.restarts import Edition
from hpc_agent.code_servers.workspace import CodeLocation
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from tests.code_servers.conftest import entry
from tests.workers import a_worker

A: Place = ("prod", "a")
B: Place = ("prod", "b")
STARTED, DEADLINE = 100.0, 100.0 + 3600.0
COUNTING = [status for status in ServerStatus if status is not ServerStatus.RETIRED]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Which versions are wanted, which servers there are, and what the time is."""

    wanted: dict[Place, float]
    servers: tuple[tuple[CodeServer, Worker], ...] = ()
    now: float = 200.0
    waiting: frozenset[Edition] = frozenset()

    def states(self) -> list[LocationState]:
        return [
            state_of(
                place,
                CodeLocation(entry=entry(place[1], version=version), is_branch=False),
                self.servers,
                note=None,
            )
            for place, version in self.wanted.items()
        ]

    def steps(self, *, handover_seconds: float | None = None) -> Steps:
        return reconcile(
            self.states(),
            [server for server, _ in self.servers],
            desired=self.wanted.keys(),
            may_start=lambda edition: edition not in self.waiting,
            now=self.now,
            handover_seconds=handover_seconds,
        )

    def started(self, *, handover_seconds: float | None = None) -> list[Place]:
        return [state.place for state in self.steps(handover_seconds=handover_seconds).start]

    def retired(self) -> list[str]:
        return [server.key for server in self.steps().retire]


def a_server(
    key: str = "srv-1",
    place: Place = A,
    *,
    version: float = 1.0,
    status: ServerStatus = ServerStatus.SERVING,
    **of_worker: Any,
) -> tuple[CodeServer, Worker]:
    """Return a server and its worker, whose job runs for an hour."""
    server = CodeServer(
        key=key,
        deployment=place[0],
        location=place[1],
        version=repr(version),
        deploy_data="{}",
        status=status,
        error=None,
        created_at=90.0,
        ready_at=110.0 if status is ServerStatus.SERVING else None,
    )
    values: dict[str, Any] = {
        "key": key,
        "kind": WorkerKind.CODE_SERVER,
        "phase": Phase.RUNNING,
        "deployment": place[0],
        "location": place[1],
        "created_at": 90.0,
        "job_id": "17",
        "started_at": STARTED,
        "deadline_at": DEADLINE,
    }
    return server, a_worker(**(values | of_worker))


def edition(version: float = 1.0) -> Edition:
    return (*A, repr(version))


def test_location_without_a_server_gets_one() -> None:
    """Each of them, and nothing is retired."""
    scene = Scene(wanted={A: 1.0, B: 1.0})
    assert (scene.started(), scene.retired()) == ([A, B], [])


def test_location_that_waits_after_a_failure_gets_none() -> None:
    """It is due again later; others do not wait for it."""
    assert Scene(wanted={A: 1.0, B: 1.0}, waiting=frozenset({edition()})).started() == [B]


@pytest.mark.parametrize("status", [ServerStatus.STARTING, ServerStatus.SERVING])
def test_server_of_the_wanted_version_is_enough(status: ServerStatus) -> None:
    """There is nothing to do, and nobody is retired."""
    scene = Scene(wanted={A: 1.0}, servers=(a_server(status=status),))
    assert scene.steps() == Steps(start=(), retire=())


def test_failed_server_is_started_anew_when_it_may_be() -> None:
    """Its location shows the error until then."""
    failed = (a_server(status=ServerStatus.FAILED),)
    assert Scene(wanted={A: 1.0}, servers=failed).started() == [A]
    assert Scene(wanted={A: 1.0}, servers=failed, waiting=frozenset({edition()})).started() == []


@pytest.mark.parametrize("status", COUNTING)
def test_new_version_gets_a_server_beside_the_old_one(status: ServerStatus) -> None:
    """Which goes when the new one has answered, and not by this."""
    scene = Scene(
        wanted={A: 2.0}, servers=(a_server(status=status),), waiting=frozenset({edition()})
    )
    assert (scene.started(), scene.retired()) == ([A], [])


def test_one_new_server_is_enough_for_a_new_version() -> None:
    """While it starts there are two, and no third comes."""
    starting = a_server("srv-2", version=2.0, status=ServerStatus.STARTING)
    scene = Scene(wanted={A: 2.0}, servers=(a_server(), starting))
    assert scene.steps() == Steps(start=(), retire=())


def test_servers_that_nobody_wants_are_retired() -> None:
    """All of a location's, in whatever status, and no other."""
    servers = (
        a_server("srv-1"),
        a_server("srv-2", status=ServerStatus.STARTING),
        a_server("srv-3", status=ServerStatus.FAILED),
        a_server("srv-4", B),
    )
    scene = Scene(wanted={B: 1.0}, servers=servers)
    assert (scene.started(), scene.retired()) == ([], ["srv-1", "srv-2", "srv-3"])


def test_location_of_the_same_name_elsewhere_is_another() -> None:
    """A branch deployment has the location names of the full one."""
    branch: Place = ("feature", "a")
    scene = Scene(wanted={A: 1.0}, servers=(a_server(place=branch),))
    assert (scene.started(), scene.retired()) == ([A], ["srv-1"])


def test_hand_over_begins_before_the_time_limit() -> None:
    """Twice its way up, the time to drain, and some to be safe."""
    margin = 2 * 20.0 + DRAIN_SECONDS + 30.0
    servers = (a_server(),)
    for now, started in [(DEADLINE - margin - 1, []), (DEADLINE - margin, [A]), (DEADLINE, [A])]:
        assert Scene(wanted={A: 1.0}, servers=servers, now=now).started() == started
    early = Scene(wanted={A: 1.0}, servers=servers, now=DEADLINE - 1000)
    assert early.started(handover_seconds=1000.0) == [A]
    assert early.started(handover_seconds=999.0) == []


def test_server_that_is_on_its_way_hands_over_to_nobody() -> None:
    """The successor of the one before it is itself no reason for one more."""
    starting = a_server("srv-2", status=ServerStatus.STARTING)
    assert Scene(wanted={A: 1.0}, servers=(a_server(), starting), now=DEADLINE).started() == []


def test_hand_over_waits_after_a_successor_that_failed() -> None:
    """The incumbent serves as long as it lives."""
    scene = Scene(
        wanted={A: 1.0}, servers=(a_server(),), now=DEADLINE, waiting=frozenset({edition()})
    )
    assert scene.steps() == Steps(start=(), retire=())


def test_job_without_a_limit_is_handed_over_never() -> None:
    """Nobody knows an end."""
    servers = (a_server(deadline_at=None),)
    assert Scene(wanted={A: 1.0}, servers=servers, now=1e12).started() == []


@pytest.mark.parametrize(
    ("wanted", "status", "version"),
    list(product([{}, {A: 1.0}, {A: 2.0}], COUNTING, [1.0, 2.0])),
)
def test_no_location_is_started_and_retired_at_once(
    wanted: dict[Place, float], status: ServerStatus, version: float
) -> None:
    """Whatever there is, the steps do not undo each other, and the same things give the same."""
    scene = Scene(wanted=wanted, servers=(a_server(version=version, status=status),))
    steps = scene.steps()
    retired = {(server.deployment, server.location) for server in steps.retire}
    assert retired.isdisjoint(state.place for state in steps.start)
    assert scene.steps() == steps
