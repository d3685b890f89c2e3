"""What the agent asks for, and that it is written down before anything happens to it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from hpc_agent.agent.poll import PollLoop
from hpc_agent.config import parse_config
from hpc_agent.dagster_plus import responses
from hpc_agent.errors import ControlPlaneUnavailableError, HpcAgentError
from hpc_agent.store import inbox, outbox
from hpc_agent.store.inbox import Request
from hpc_agent.workers import answers
from tests.agent.conftest import Bench
from tests.relay.fake_control_plane import Reply

POPPED = {
    "requestId": "q1",
    "requestApi": "PING_LOCATION",
    "requestBody": "{}",
    "deploymentName": "feature",
    "isBranchDeployment": True,
}


def answer(*requests: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"userCloudAgent": {"popUserCloudAgentRequests": list(requests)}}}


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (
            {},
            {
                "forBranchDeployments": False,
                "forFullDeployments": ["prod"],
                "agentQueues": [None],
            },
        ),
        (
            {
                "control_plane": {"deployments": ["a", "b"], "branch_deployments": True},
                "agent_queues": {"additional_queues": ["gpu"]},
            },
            {
                "forBranchDeployments": True,
                "forFullDeployments": ["a", "b"],
                "agentQueues": ["gpu", None],
            },
        ),
    ],
)
async def test_poll_asks_for_what_this_agent_serves(
    bench: Bench, given: dict[str, Any], asked: dict[str, Any]
) -> None:
    """In the name of the organization, as the stock agent does."""
    content = bench.context.config.model_dump(mode="json", exclude_none=True)
    content["control_plane"] |= given.get("control_plane", {})
    content |= {key: value for key, value in given.items() if key != "control_plane"}
    context = replace(bench.context, config=parse_config(content, source="test"))
    bench.control_plane.answer = answer()
    await PollLoop(context).step()
    (call,) = bench.control_plane.requests
    assert json.loads(call.body)["variables"] == asked
    assert call.headers["dagster-cloud-scope"] == "organization"


async def test_request_is_written_down_once(bench: Bench) -> None:
    """One may be handed out twice; it is the same request."""
    bench.control_plane.answer = answer(POPPED)
    loop = PollLoop(bench.context)
    await loop.step()
    await loop.step()
    (request,) = await to_serve(bench)
    assert (request.request_id, request.deployment) == ("q1", "feature")
    assert request.is_branch_deployment


async def answer_request(bench: Bench) -> None:
    await bench.context.store.run(lambda db: answers.give(db, "q1", responses.success(), now=1.0))


async def test_request_whose_answer_did_not_arrive_is_answered_again(bench: Bench) -> None:
    """It counted as sent, and the request is handed out again: somebody else had said 200."""
    bench.control_plane.answer = answer(POPPED)
    loop = PollLoop(bench.context)
    await loop.step()
    await answer_request(bench)
    await execute(bench, "DELETE FROM outbox")
    assert await unanswered(bench) == []
    await loop.step()
    assert await unanswered(bench) == ["q1"]
    await answer_request(bench)
    assert len(await bench.messages(outbox.RESPONSE)) == 1


async def test_answer_that_was_set_aside_is_given_anew(bench: Bench) -> None:
    """The control plane asks for it: the old one is not kept beside it."""
    bench.control_plane.answer = answer(POPPED)
    loop = PollLoop(bench.context)
    await loop.step()
    await answer_request(bench)
    await execute(bench, "UPDATE outbox SET refused = 'no', refused_at = 1.0")
    await loop.step()
    assert await unanswered(bench) == ["q1"]
    await answer_request(bench)
    assert len(await bench.messages(outbox.RESPONSE)) == 1


async def test_request_whose_answer_still_waits_is_served_once(bench: Bench) -> None:
    """It was handed out again since its answer is not there yet."""
    bench.control_plane.answer = answer(POPPED)
    loop = PollLoop(bench.context)
    await loop.step()
    await answer_request(bench)
    await loop.step()
    assert await unanswered(bench) == []


def pop_once(bench: Bench, *requests: Any, errors: list[Any] | None = None) -> None:
    """Hand out requests at the first poll and never again, as Dagster+ does."""
    content: dict[str, Any] = answer(*requests)
    if errors:
        content["errors"] = errors
    replies = [Reply(content=json.dumps(content).encode())]
    bench.control_plane.script = lambda _received: (
        replies.pop() if replies else Reply(content=json.dumps(answer()).encode())
    )


async def to_serve(bench: Bench) -> list[Request]:
    def read(db: Database) -> list[Request]:
        return inbox.still_to_serve(db, inbox.to_serve(db))

    return await bench.context.store.run(read)


async def unanswered(bench: Bench) -> list[str]:
    return await bench.context.store.run(inbox.to_serve)


async def refusals(bench: Bench) -> dict[str, str]:
    """Return what was answered, by request."""
    payloads = map(json.loads, await bench.messages(outbox.RESPONSE))
    return {
        payload["request_id"]: payload["response"]["error_infos"][0]["message"]
        for payload in payloads
    }


async def execute(bench: Bench, statement: str) -> None:
    await bench.context.store.run(lambda db: db.execute(statement))


async def fill_disk(bench: Bench) -> None:
    """Let SQLite say SQLITE_FULL at the next page, as a full disk does."""
    pages = await bench.context.store.run(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await execute(bench, f"PRAGMA max_page_count = {pages}")


BIG = POPPED | {"requestBody": json.dumps({"padding": "x" * 100_000})}


async def test_what_a_full_disk_does_not_take_is_kept(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """It is written before the next poll, and the log says so once; no more is asked for."""
    pop_once(bench, BIG, BIG | {"requestId": "q2"})
    await fill_disk(bench)
    loop = PollLoop(bench.context)
    for _ in range(3):
        await loop.step()
    assert len(bench.control_plane.requests) == 1
    assert await unanswered(bench) == []
    told = [record for record in caplog.records if "wait in memory" in record.message]
    assert len(told) == 1
    assert "full" in told[0].message
    await execute(bench, "PRAGMA max_page_count = 100000")
    await loop.step()
    assert await unanswered(bench) == ["q1", "q2"]
    assert len(bench.control_plane.requests) == 2


async def test_what_a_locked_database_does_not_take_is_kept(bench: Bench) -> None:
    """Longer than the busy timeout, which is short here."""
    pop_once(bench, POPPED)
    await execute(bench, "PRAGMA busy_timeout = 20")
    loop = PollLoop(bench.context)
    other = await asyncio.to_thread(_locked, bench.context.config.home / "agent.db")
    await loop.step()
    await loop.step()
    assert len(bench.control_plane.requests) == 1
    await asyncio.to_thread(other.close)
    await loop.step()
    assert await unanswered(bench) == ["q1"]


def _locked(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


@pytest.mark.parametrize(
    "bad",
    [
        POPPED | {"requestId": "bad", "requestBody": "half a pair: \ud800"},
        POPPED | {"requestId": "bad", "requestBody": None},
        POPPED | {"requestId": "bad", "deploymentName": "\udc80"},
        {"requestId": "bad"},
    ],
    ids=["no text", "no body", "no text for a name", "nothing but an id"],
)
async def test_a_request_that_cannot_be_read_costs_no_other(
    bench: Bench, bad: dict[str, Any]
) -> None:
    """It gets an error for an answer."""
    pop_once(bench, POPPED, bad, POPPED | {"requestId": "q2"})
    await PollLoop(bench.context).step()
    assert await unanswered(bench) == ["q1", "q2"]
    assert "cannot read this request" in (await refusals(bench))["bad"]


@pytest.mark.parametrize("bad", [None, "text", {}, {"requestId": 7}, {"requestId": "\ud800"}])
async def test_a_request_without_an_id_costs_no_other(bench: Bench, bad: object) -> None:
    """Nobody can be answered; the log says what it was."""
    pop_once(bench, bad, POPPED)
    await PollLoop(bench.context).step()
    assert await unanswered(bench) == ["q1"]
    assert await refusals(bench) == {}


async def test_a_request_that_cannot_be_written_costs_no_other(bench: Bench) -> None:
    """What SQLite does not take of one request is its own fault; it is answered, not kept."""
    await execute(
        bench,
        "CREATE TRIGGER no BEFORE INSERT ON inbox WHEN NEW.body LIKE '%x%' "
        "BEGIN SELECT raise(ABORT, 'too big'); END",
    )
    pop_once(bench, BIG | {"requestId": "bad"}, POPPED)
    loop = PollLoop(bench.context)
    await loop.step()
    await loop.step()
    assert await unanswered(bench) == ["q1"]
    assert "too big" in (await refusals(bench))["bad"]
    assert len(bench.control_plane.requests) == 2


async def test_errors_beside_requests_cost_none_of_them(bench: Bench) -> None:
    """GraphQL may answer with data and errors; what was handed out is not handed out again."""
    pop_once(bench, POPPED, errors=[{"message": "one resolver failed"}])
    await PollLoop(bench.context).step()
    assert await unanswered(bench) == ["q1"]


async def test_errors_alone_are_an_error(bench: Bench) -> None:
    """Then nothing was handed out."""
    pop_once(bench, errors=[{"message": "no"}])
    with pytest.raises(ControlPlaneUnavailableError):
        await PollLoop(bench.context).step()


async def test_poll_asks_anew_for_what_may_not_have_been_read(bench: Bench) -> None:
    """The first one does, and the one after an answer that could not be had."""
    bench.control_plane.answer = answer()
    loop = PollLoop(bench.context)
    await loop.step()
    await loop.step()
    bench.control_plane.status = 502
    with pytest.raises(HpcAgentError):
        await loop.step()
    bench.control_plane.status = 200
    await loop.step()
    await loop.step()
    asked = [call.headers.get("x-hpc-poll") for call in bench.control_plane.requests]
    assert asked == ["anew", None, None, "anew", None]
