"""Which servers are kept, and which make room."""

from __future__ import annotations

import pytest

from hpc_agent.code_servers.demand import Demand
from hpc_agent.config import ServerTtl
from tests.agent.conftest import Clock

DAY = 24 * 3600.0


def demand_of(clock: Clock, **settings: object) -> Demand:
    return Demand(ServerTtl.model_validate({"enabled": True} | settings), clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_location_is_wanted_until_its_time_is_over(clock: Clock) -> None:
    """A request starts the time; the next one starts it anew."""
    demand = demand_of(clock, full_deployments_seconds=60)
    demand.note(("prod", "a"), is_branch=False)
    clock.now += 50
    demand.note(("prod", "a"), is_branch=False)
    clock.now += 50
    assert demand.wanted() == {("prod", "a")}
    clock.now += 10
    assert demand.wanted() == set()


def test_each_kind_of_deployment_has_its_own_time(clock: Clock) -> None:
    """A branch deployment's server goes sooner when that is asked for."""
    demand = demand_of(clock, full_deployments_seconds=100, branch_deployments_seconds=10)
    demand.note(("prod", "a"), is_branch=False)
    demand.note(("branch", "a"), is_branch=True)
    clock.now += 20
    assert demand.wanted() == {("prod", "a")}


def test_branch_deployments_have_a_time_in_any_case(clock: Clock) -> None:
    """Full deployments only when it is enabled: then they do not count at all."""
    demand = demand_of(clock, enabled=False, max_servers=1)
    demand.note(("prod", "a"), is_branch=False)
    demand.want_upload(("prod", "a"), is_branch=False)
    demand.note(("branch", "b"), is_branch=True)
    assert demand.has_ttl(is_branch=True)
    assert not demand.has_ttl(is_branch=False)
    assert demand.wanted() == {("branch", "b")}


def test_least_recently_used_makes_room(clock: Clock) -> None:
    """No more servers than configured, and the latest asked stay."""
    demand = demand_of(clock, max_servers=2)
    for name in ("first", "second", "third"):
        clock.now += 1
        demand.note(("prod", name), is_branch=False)
    assert demand.wanted() == {("prod", "second"), ("prod", "third")}


def test_location_with_work_is_kept_whatever_the_limits(clock: Clock) -> None:
    """A request that is being worked on, and an upload that is not done, outlast time and room."""
    demand = demand_of(clock, max_servers=1, full_deployments_seconds=5)
    demand.want_upload(("prod", "upload"), is_branch=False)
    with demand.hold(("prod", "busy"), is_branch=False):
        clock.now += 100
        demand.note(("prod", "new"), is_branch=False)
        assert demand.wanted() == {("prod", "upload"), ("prod", "busy")}
        demand.uploaded(("prod", "upload"))
    clock.now += 4
    demand.note(("prod", "new"), is_branch=False)
    assert demand.wanted() == {("prod", "new")}


def test_time_starts_when_the_upload_is_done(clock: Clock) -> None:
    """A server that waited in the queue for longer than its time to live still serves."""
    demand = demand_of(clock, full_deployments_seconds=10)
    demand.want_upload(("prod", "a"), is_branch=False)
    clock.now += 1000
    demand.uploaded(("prod", "a"))
    clock.now += 9
    assert demand.wanted() == {("prod", "a")}


def test_restart_forgets_nothing(clock: Clock) -> None:
    """Times, uploads and checks are taken up again."""
    demand = demand_of(clock, full_deployments_seconds=10)
    demand.note(("prod", "old"), is_branch=False)
    clock.now += 6
    demand.want_upload(("branch", "b"), is_branch=True)
    demand.check("other")
    again = demand_of(clock, full_deployments_seconds=10)
    again.load(demand.dump())
    assert again.wanted() == {("prod", "old"), ("branch", "b")}
    assert again.checks() == {"other"}
    clock.now += 5
    assert again.wanted() == {("branch", "b")}


def test_restart_with_the_limit_turned_off_drops_what_had_one(clock: Clock) -> None:
    """Full deployments are served all the time then."""
    demand = demand_of(clock)
    demand.want_upload(("prod", "a"), is_branch=False)
    again = demand_of(clock, enabled=False)
    again.load(demand.dump())
    assert again.wanted() == set()


def test_what_is_over_is_dropped(clock: Clock) -> None:
    """The list does not grow with every branch deployment there has ever been."""
    demand = demand_of(clock)
    demand.note(("branch", "a"), is_branch=True)
    clock.now += DAY
    demand.forget()
    assert "branch" not in demand.dump()
