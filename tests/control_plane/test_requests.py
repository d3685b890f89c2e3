"""Requests: at-least-once delivery, one answer, leases."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from dagster_cloud.api.dagster_cloud_api import (
    DagsterCloudApi,
    DagsterCloudApiErrorResponse,
    PingLocationArgs,
)
from dagster_shared.serdes import serialize_value

from hpc_agent.control_plane.presence import LEASE_SECONDS, AgentPresence
from hpc_agent.control_plane.request_queue import Ask, RequestQueue, new_request
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.requests import Request, Requests, RequestState, Serves
from hpc_agent.traces.otlp import OtlpTracer
from hpc_agent.traces.span import trace_id
from tests.control_plane.conftest import on_both_databases
from tests.traces.collector import collecting

pytestmark = on_both_databases

LAUNCH = DagsterCloudApi.LAUNCH_RUN
PING = DagsterCloudApi.PING_LOCATION


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def requests(database: Database) -> Requests:
    return Requests(database)


def ping(queue: str | None = None, timeout: float = 60.0, deployment: str = "prod") -> Request:
    args = PingLocationArgs(location_name="here")
    return new_request(
        Ask(api=PING, args=args, deployment=deployment, agent_queue=queue, timeout_seconds=timeout)
    )


def pop(
    requests: Requests, owner: str = "agent:one", queues: tuple[str | None, ...] = (None,)
) -> list[str]:
    serves = Serves(deployments=["prod"], queues=queues)
    popped = requests.pop(owner=owner, serves=serves, limit=10)
    return [request.request_id for request in popped]


def test_agent_that_polls_anew_gets_again_what_it_has_not_answered(requests: Requests) -> None:
    """At once, in order, and neither what it has answered nor what others have."""
    mine, answered, others = ping(), ping(), ping()
    for request in (mine, answered):
        requests.add(request)
    pop(requests)
    requests.add(others)
    pop(requests, owner="agent:two")
    requests.answer(answered.request_id, "{}")

    requests.hand_back_of("agent:one")

    assert pop(requests) == [mine.request_id]


def test_popped_request_is_handed_out_once(requests: Requests) -> None:
    """Two polls do not get the same request."""
    request = ping()
    requests.add(request)

    assert pop(requests) == [request.request_id]
    assert pop(requests, owner="agent:two") == []


def test_oldest_request_comes_first(requests: Requests) -> None:
    """Requests keep their order, and their place when handed back."""
    first, second = ping(), ping()
    requests.add(second)
    requests.add(replace(first, created_at=second.created_at - 1))
    assert pop(requests) == [first.request_id, second.request_id]

    requests.hand_back(requests.leased())

    assert pop(requests) == [first.request_id, second.request_id]


def test_only_agents_of_its_queue_get_a_request(requests: Requests) -> None:
    """A request for an agent queue waits for an agent that serves it."""
    gpu, default = ping(queue="gpu"), ping()
    requests.add(gpu)
    requests.add(default)

    assert pop(requests, queues=("gpu",)) == [gpu.request_id]
    assert pop(requests, queues=("gpu", None)) == [default.request_id]


def test_other_deployments_requests_stay(requests: Requests) -> None:
    """An agent gets requests of the deployments it names only."""
    requests.add(ping(deployment="staging"))

    assert pop(requests) == []


def test_first_answer_wins(requests: Requests) -> None:
    """A second answer, from an agent that lost its lease, changes nothing."""
    request = ping()
    requests.add(request)
    pop(requests)

    assert requests.answer(request.request_id, "first") is not None
    assert requests.answer(request.request_id, "second") is None
    stored = requests.get(request.request_id)
    assert stored is not None
    assert stored.response == "first"


def test_expired_request_is_dropped_but_launches_are_not(requests: Requests) -> None:
    """Nobody waits for an old question; a run must start however late."""
    question = ping(timeout=-1)
    launch = new_request(
        Ask(api=LAUNCH, args=None, deployment="prod", run_id="r", timeout_seconds=-1)
    )
    requests.add(question)
    requests.add(launch)

    requests.sweep()

    assert pop(requests) == [launch.request_id]
    expired = requests.get(question.request_id)
    assert expired is not None
    assert expired.state is RequestState.EXPIRED


def test_withdrawn_launch_is_not_handed_out(requests: Requests) -> None:
    """A launch can be taken back until an agent has taken it."""
    early = new_request(Ask(api=LAUNCH, args=None, deployment="prod", run_id="a"))
    late = new_request(Ask(api=LAUNCH, args=None, deployment="prod", run_id="b"))
    requests.add(early)
    assert requests.withdraw(early.request_id)
    requests.add(late)
    assert pop(requests) == [late.request_id]
    assert not requests.withdraw(late.request_id)


async def test_lease_of_a_silent_agent_is_given_to_another(requests: Requests) -> None:
    """When an agent's signs of life stop before it answers, its requests are handed out again."""
    clock = Clock()
    presence = AgentPresence(clock)
    queue = RequestQueue(requests, presence)
    request_id = await queue.enqueue(Ask(api=LAUNCH, args=None, deployment="prod", run_id="r"))
    pop(requests, owner="agent:one")
    presence.saw_heartbeat("one", "token")
    clock.now += LEASE_SECONDS - 1
    await queue.recover_leases()
    assert pop(requests, owner="agent:two") == []

    clock.now += 2
    await queue.recover_leases()

    assert pop(requests, owner="agent:two") == [request_id]


async def test_unanswered_request_is_repeated_to_agents_that_can_tell(
    requests: Requests, database: Database
) -> None:
    """A response lost on the way is repeated, but not to the stock agent: it would run twice."""
    queue = RequestQueue(requests, AgentPresence())
    for owner in ("agent:ours", "token:stock"):
        old = replace(
            ping(), state=RequestState.LEASED, lease_owner=owner,
            leased_at=time.time() - 3600, hand_outs=1,
        )  # fmt: skip
        requests.add(old)

    await queue.recover_leases()

    assert [each.lease_owner for each in requests.leased()] == ["token:stock"]


async def test_waiting_poll_returns_when_something_is_enqueued(requests: Requests) -> None:
    """A long poll does not wait for its time to run out."""
    queue = RequestQueue(requests, AgentPresence())
    waiting = asyncio.create_task(queue.wait_for_request(60))
    await asyncio.sleep(0)

    await queue.enqueue(Ask(api=LAUNCH, args=None, deployment="prod"))

    await asyncio.wait_for(waiting, 5)


async def test_request_of_another_process_ends_the_wait(
    requests: Requests, database: Database
) -> None:
    """What ``control-plane deploy`` enqueues by its own database connection is noticed too."""
    queue = RequestQueue(requests, AgentPresence())
    waiting = asyncio.create_task(queue.wait_for_request(60))
    await asyncio.sleep(0.05)

    Requests(database).add(ping())

    await asyncio.wait_for(waiting, 10)


async def test_answer_reaches_who_waits_for_it(requests: Requests) -> None:
    """The waiter gets the answer, and it alone acts on it."""
    queue = RequestQueue(requests, AgentPresence())
    request_id = await queue.enqueue(Ask(api=LAUNCH, args=None, deployment="prod"))
    waiting = asyncio.create_task(queue.wait_for_answer(request_id, 30))
    await asyncio.sleep(0.05)

    _, is_awaited = await queue.answer(request_id, "done")

    settled = await waiting
    assert is_awaited
    assert settled is not None
    assert settled.response == "done"


async def test_late_answer_is_nobodys(requests: Requests) -> None:
    """After the waiter has gone, the answer is left to whoever settles it."""
    queue = RequestQueue(requests, AgentPresence())
    request_id = await queue.enqueue(Ask(api=LAUNCH, args=None, deployment="prod"))
    assert await queue.wait_for_answer(request_id, 0.05) is None

    settled, is_awaited = await queue.answer(request_id, "late")

    assert settled is not None
    assert not is_awaited


async def test_one_unclaimed_workspace_check_is_enough(requests: Requests) -> None:
    """Deploying ten times while no agent looks leaves one request, one per agent queue."""
    queue = RequestQueue(requests, AgentPresence())
    for _ in range(3):
        await queue.check_workspace("prod", {None, "gpu"})

    assert len(pop(requests, queues=(None, "gpu"))) == 2


async def test_settled_request_is_traced(requests: Requests) -> None:
    """From its entry to its answer, with the wait for an agent, in the trace of its run."""
    with collecting() as collector:
        tracer = OtlpTracer(collector.url, service="gateway", instance="one")
        queue = RequestQueue(requests, AgentPresence(), tracer=tracer)
        answered = await queue.enqueue(Ask(api=LAUNCH, args=None, deployment="prod", run_id="r"))
        pop(requests)
        failure = serialize_value(DagsterCloudApiErrorResponse(error_infos=[]))
        await queue.answer(answered, failure)
        await queue.answer(answered, "once more")
        left = await queue.enqueue(Ask(api=PING, args=None, deployment="prod"))
        await queue.withdraw(left)
        tracer.close()

    (launch,), (ping,) = (
        collector.named("request LAUNCH_RUN"),
        collector.named(f"request {PING.name}"),
    )
    waits = {span.parent: span for span in collector.named("wait for agent")}
    assert launch.trace == f"{trace_id('run r'):032x}"
    assert ping.trace == f"{trace_id(f'request {left}'):032x}"
    assert launch.began_at <= waits[launch.id].ended_at <= launch.ended_at
    assert waits[ping.id].ended_at == ping.ended_at
    assert (launch.error, ping.error) == ("the agent's answer is an error", "withdrawn")
