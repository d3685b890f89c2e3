"""The report loop: each kind of message as the control plane takes it.

What holds for every queue of outgoing messages is in tests/outgoing.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from sqlite_utils import Database

from hpc_agent.agent.report import ReportLoop
from hpc_agent.dagster_plus import events
from hpc_agent.outgoing.queue import Counts
from hpc_agent.store import outbox
from hpc_agent.store.outbox import Outbox
from tests.agent.conftest import Bench


async def put(bench: Bench, kind: str, content: Any, *, key: str = "k", stream: str = "a") -> None:
    """Put a message into the outbox."""

    def add(db: Database) -> None:
        outbox.add(
            db,
            kind=kind,
            deployment="prod",
            order_key=stream,
            idempotency_key=key,
            payload=content if isinstance(content, str) else json.dumps(content),
            now=1.0,
        )

    await bench.context.store.run(add)


async def counts(bench: Bench) -> Counts:
    return await Outbox(bench.context.store).count()


async def test_event_is_stored_under_its_key(bench: Bench) -> None:
    """As the stock client stores one."""
    await put(bench, outbox.EVENT, {"runId": "a"})
    await ReportLoop(bench.context).step()
    (call,) = bench.control_plane.requests
    assert json.loads(call.body)["variables"] == {"eventRecord": {"runId": "a"}}
    assert call.headers["idempotency-key"] == "k"
    assert call.headers["dagster-cloud-deployment"] == "prod"
    assert await counts(bench) == Counts(0, 0)


async def test_tags_are_added(bench: Bench) -> None:
    """They travel as JSON inside of JSON."""
    await put(bench, outbox.RUN_TAGS, {"run_id": "a", "tags": {"x": "y"}})
    await ReportLoop(bench.context).step()
    (call,) = bench.control_plane.requests
    assert json.loads(call.body)["variables"] == {"runId": "a", "jsonNewTags": '{"x": "y"}'}


async def test_answer_is_uploaded(bench: Bench) -> None:
    """Compressed, in a multipart file; whatever a 2xx says is a receipt."""
    await put(bench, outbox.RESPONSE, {"answer": 1})
    bench.control_plane.answer = {}
    await ReportLoop(bench.context).step()
    (call,) = bench.control_plane.requests
    assert call.path == "/upload_api_response"
    compressed = call.body[call.body.index(b"\r\n\r\n") + 4 :]
    assert json.loads(zlib.decompressobj().decompress(compressed)) == {"answer": 1}
    assert await counts(bench) == Counts(0, 0)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [("from the future", "{}"), (outbox.EVENT, "no JSON"), (outbox.RUN_TAGS, "[]")],
)
async def test_what_is_no_message_is_set_aside(bench: Bench, kind: str, payload: str) -> None:
    """It holds up what is behind it no longer than it takes to see that."""
    await put(bench, kind, payload)
    await put(bench, outbox.EVENT, {"runId": "a"}, key="after")
    await ReportLoop(bench.context).step()
    assert list(bench.control_plane.stored) == ["after"]
    assert await counts(bench) == Counts(0, 1)
    assert bench.context.errors.packed(bench.clock.now)


async def test_text_that_is_none_is_sent_as_far_as_it_is(bench: Bench) -> None:
    """Half of a surrogate pair, as in a file name that is not UTF-8, is taken by no database."""
    event = events.engine_event("run\udcff", "job", "file \udcff.csv", at=1.0, error="\ud800!")
    await put(bench, outbox.EVENT, event, key="k\udcff", stream="run:\udcff")
    await ReportLoop(bench.context).step()
    (call,) = bench.control_plane.requests
    record = json.loads(call.body)["variables"]["eventRecord"]
    assert record["runId"] == "run\ufffd"
    assert record["dagsterEvent"]["message"] == "file \ufffd.csv"
    data = json.loads(record["dagsterEvent"]["eventSpecificData"])
    assert data["error"]["message"] == "\ufffd!"
    assert await counts(bench) == Counts(0, 0)


async def test_a_whole_pair_stays_whole(bench: Bench) -> None:
    """And so does text that only looks like an escape."""
    event = {"runId": "a", "text": "\U0001f600 \\ud800 \\\\ud800"}
    await put(bench, outbox.EVENT, event)
    await ReportLoop(bench.context).step()
    (call,) = bench.control_plane.requests
    assert json.loads(call.body)["variables"]["eventRecord"] == event
