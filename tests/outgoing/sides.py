"""The two queues of messages that go out, behind one face: what holds for one holds for both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlite_utils import Database

from hpc_agent.agent.loop import Bell
from hpc_agent.agent.report import deliver
from hpc_agent.config import parse_config
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.dagster_plus.events import STORE_EVENT
from hpc_agent.outgoing.drain import Drain
from hpc_agent.outgoing.queue import OutgoingQueue
from hpc_agent.outgoing.storage_addresses import StorageAddresses
from hpc_agent.relay.delivery import Delivery
from hpc_agent.relay.event_writes import EventWrite
from hpc_agent.relay.spool import FILE_NAME as SPOOL_FILE
from hpc_agent.relay.spool import Spool
from hpc_agent.relay.upstream import Upstream
from hpc_agent.store import outbox
from hpc_agent.store.database import FILE_NAME as STORE_FILE
from hpc_agent.store.database import Store
from hpc_agent.store.outbox import Outbox
from tests.relay.fake_control_plane import FakeControlPlane, Received


@dataclass(slots=True)
class Clock:
    """A monotonic clock that a test may set forward."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


@dataclass(slots=True)
class _Common:
    """What both sides have."""

    home: Path
    control_plane: FakeControlPlane
    patience_seconds: float = 3600.0
    deadline_seconds: float = 30.0
    clock: Clock = field(default_factory=Clock)
    said: list[str] = field(default_factory=list)
    bell: Bell = field(default_factory=Bell)
    drain: Drain[Any] = field(init=False)

    def make_drain(self, name: str, queue: OutgoingQueue[Any], send: Callable[..., Any]) -> None:
        """Make the drain with a clock of the test's, and news as an agent has them."""
        self.drain = Drain(
            name,
            queue,
            send,
            news=self.bell.wait,
            patience_seconds=self.patience_seconds,
            deadline_seconds=self.deadline_seconds,
            on_set_aside=self.said.append,
            clock=self.clock,
        )


@dataclass(slots=True)
class OutboxSide(_Common):
    """The agent's outbox."""

    table: str = "outbox"
    stream: str = "order_key"
    store: Store = field(init=False)
    api: AgentApi = field(init=False)
    queue: Outbox = field(init=False)

    @property
    def file(self) -> Path:
        return self.home / STORE_FILE

    async def open(self) -> None:
        config = parse_config(
            {
                "control_plane": {"url": self.control_plane.url},
                "work_dir": str(self.home / "work"),
                "home": str(self.home),
            },
            source="test",
        )
        self.store = Store(self.home, on_news=lambda _: self.bell.ring())
        await self.store.open()
        self.api = AgentApi(config.control_plane, token=lambda: "token", agent_id="agent")
        self.queue = Outbox(self.store)
        self.make_drain("outbox", self.queue, lambda message: deliver(self.api, message))

    async def close(self) -> None:
        await self.api.http.aclose()
        await self.store.close()

    async def put(self, stream: str, number: int) -> None:
        def add(db: Database) -> None:
            outbox.add(
                db,
                kind=outbox.EVENT,
                deployment="prod",
                order_key=stream,
                idempotency_key=f"{stream}-{number}",
                payload=json.dumps({"runId": stream, "number": number}),
                now=1.0,
            )

        await self.store.run(add)


@dataclass(slots=True)
class SpoolSide(_Common):
    """The relay's spool."""

    table: str = "writes"
    stream: str = "stream"
    queue: Spool = field(init=False)
    http: httpx.AsyncClient = field(init=False)

    @property
    def file(self) -> Path:
        return self.home / SPOOL_FILE

    async def open(self) -> None:
        self.queue = Spool(self.file, max_bytes=1 << 30)
        await self.queue.open()
        self.http = httpx.AsyncClient(base_url=self.control_plane.url, trust_env=False)
        upstream = Upstream(
            api=self.http,
            storage=self.http,
            addresses=StorageAddresses(self.control_plane.url, []),
            credentials=lambda _deployment: {},
        )
        delivery = Delivery(upstream, self.queue, patience_seconds=self.patience_seconds)
        self.make_drain("event spool", self.queue, delivery.send)

    async def close(self) -> None:
        await self.http.aclose()
        await self.queue.close()

    async def put(self, stream: str, number: int) -> None:
        await self.queue.put(event_write(stream, number))
        self.bell.ring()


# A queue with its drain: `open`, `put`, and `drain` until nothing is due.
Side = OutboxSide | SpoolSide


def event_write(stream: str, number: int) -> EventWrite:
    """Return an event write as the relay makes one of a job's request."""
    record = {"runId": stream, "number": number}
    return EventWrite(
        stream=stream,
        idempotency_key=f"{stream}-{number}",
        deployment="prod",
        method="POST",
        path="/graphql",
        headers=(("content-type", "application/json"),),
        body=json.dumps({"query": STORE_EVENT, "variables": {"eventRecord": record}}).encode(),
    )


def record_of(received: Received) -> dict[str, Any]:
    """Return the event that a request brought."""
    record: dict[str, Any] = json.loads(received.body)["variables"]["eventRecord"]
    return record


def stream_of(received: Received) -> str:
    return str(record_of(received)["runId"])


def stored(control_plane: FakeControlPlane, stream: str) -> list[int]:
    """Return the numbers of a stream's events in the order in which they were taken."""
    records = [record_of(received) for received in control_plane.stored.values()]
    return [record["number"] for record in records if record["runId"] == stream]


def change(side: Side, statement: str) -> None:
    """Change the file as another process would."""
    with contextlib.closing(sqlite3.connect(side.file, isolation_level=None)) as db:
        db.execute(statement)
