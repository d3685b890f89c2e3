"""A gateway alone, and agents that ask as fast as they are answered: a poll, an event, a poll …"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.config import ControlPlane
from hpc_agent.control_plane.database_url import storage_yaml
from hpc_agent.dagster_plus.agent_calls import pop_requests
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.dagster_plus.events import STORE_EVENT, engine_event
from hpc_agent.demo.processes import Child, wait_for
from tests.bench.peers.rows import Row, percentile, row_of
from tests.postgres import find_binaries, running_server

PART = "gateway"
_COMMAND = [sys.executable, "-m", "hpc_agent", "control-plane"]
_START_SECONDS = 120.0
# New connections of one address that a gateway waits for at the same time are bounded.
_NEW_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What so many agents have seen: seconds that each request took, and requests a second."""

    agents: int
    seconds: list[float]
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway that runs, without webserver and daemon."""

    url: str
    ca: Path
    token: str


@contextlib.contextmanager
def on_sqlite() -> Iterator[Gateway]:
    """Start a gateway on SQLite."""
    with (
        tempfile.TemporaryDirectory(prefix="hpc-gw-", ignore_cleanup_errors=True) as path,
        _gateway(Path(path), "") as gateway,
    ):
        yield gateway


@contextlib.contextmanager
def on_postgres() -> Iterator[Gateway]:
    """Start a gateway on a PostgreSQL of our own. Raises NoPostgresError where there is none."""
    with (
        tempfile.TemporaryDirectory(prefix="hpc-gw-", ignore_cleanup_errors=True) as path,
        tempfile.TemporaryDirectory(prefix="hpc-pg-", ignore_cleanup_errors=True) as data,
        running_server(find_binaries(), Path(data)) as server,
        _gateway(Path(path), server.create_database()) as gateway,
    ):
        yield gateway


def load(gateway: Gateway, agents: int, seconds: float) -> Load:
    """Let so many agents ask for so long. Raises TimeoutError when they do not even connect."""
    return asyncio.run(_load(gateway, agents, seconds))


def rows_of(contestant: str, found: Load) -> list[Row]:
    """Return the rows of one gateway under one load."""
    p99 = [percentile(sorted(found.seconds), 0.99) * 1000] if found.seconds else []
    return [
        row_of(PART, requests_of(found.agents), contestant, "/s", [found.rate]),
        row_of(PART, f"p99 of an answer, {counted(found.agents)}", contestant, "ms", p99),
    ]


def requests_of(agents: int) -> str:
    """Return what the measure is called that counts the requests of so many agents."""
    return f"requests answered, {counted(agents)}"


def counted(agents: int) -> str:
    """Return so many agents in words."""
    return f"{agents:,} agent{'s' if agents != 1 else ''}"


@contextlib.contextmanager
def _gateway(directory: Path, database: str) -> Iterator[Gateway]:
    home = directory / "cp"
    home.mkdir(mode=0o700)
    storage = storage_yaml(database, {}) if database else ""
    (home / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{storage}")
    options = ["--home", str(home), "--port", "0", "--no-webserver", "--no-daemon", "--json"]
    child = Child("gateway", [*_COMMAND, "start", *options], directory / "gateway.log")
    said = directory / "gateway.json"
    try:
        with said.open("wb") as stdout:
            child.start(stdout)
        wait_for(
            "the gateway does not come up",
            lambda: said.read_text().strip().endswith("}"),
            seconds=_START_SECONDS,
            alive=[child],
        )
        argv = [*_COMMAND, "token", "create", "--name", "load", "--json", "--home", str(home)]
        created = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        yield Gateway(
            url=json.loads(said.read_text())["api"],
            ca=home / "tls" / "ca.pem",
            token=json.loads(created)["token"],
        )
    finally:
        child.stop()


async def _load(gateway: Gateway, agents: int, seconds: float) -> Load:
    settings = ControlPlane(url=gateway.url, ca_bundle=gateway.ca)
    rush = _Rush(agents, seconds)
    async with (
        asyncio.timeout(_START_SECONDS + seconds),
        contextlib.AsyncExitStack() as stack,
        asyncio.TaskGroup() as asking,
    ):
        for number in range(agents):
            api = AgentApi(settings, token=lambda: gateway.token, agent_id=f"load-{number}")
            asking.create_task(rush.asks(await stack.enter_async_context(api)))
    return Load(agents=agents, seconds=rush.taken, rate=len(rush.taken) / seconds)


class _Rush:
    """Agents that connect a few at a time; the clock runs from when all of them are there."""

    def __init__(self, agents: int, seconds: float) -> None:
        self.taken: list[float] = []
        self._missing = agents
        self._seconds = seconds
        self._until = float("inf")
        self._connecting = asyncio.Semaphore(_NEW_AT_ONCE)

    async def asks(self, api: AgentApi) -> None:
        """Ask one after the other until the time is over."""
        run_id = str(uuid.uuid4())
        async with self._connecting:
            await _poll(api)
            await _store(api, run_id)  # SQLite makes a database for each run: that is not load
        self._missing -= 1
        if not self._missing:
            self._until = time.monotonic() + self._seconds
        for number in itertools.count():
            began = time.monotonic()
            await (_poll(api) if number % 2 else _store(api, run_id))
            ended = time.monotonic()
            if ended > self._until:
                return
            if began > self._until - self._seconds:
                self.taken.append(ended - began)


async def _poll(api: AgentApi) -> None:
    await pop_requests(api, ["prod"], branch_deployments=False, queues=[None], wait_seconds=0)


async def _store(api: AgentApi, run_id: str) -> None:
    event = {"eventRecord": engine_event(run_id, "no_op", "load", at=time.time())}
    await api.graphql(STORE_EVENT, event, deployment="prod", idempotency_key=str(uuid.uuid4()))
