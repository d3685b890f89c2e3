"""What the gateway counts of its work."""

from __future__ import annotations

import asyncio
import time

import httpx

from hpc_agent.control_plane.gateway import open_gateway
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.metrics import Readings
from hpc_agent.control_plane.store.agents import Agent, Agents
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.requests import Requests
from hpc_agent.control_plane.tls import generated_certificate
from hpc_agent.metrics.gateway import GATEWAY
from hpc_agent.metrics.prometheus import PrometheusMeter
from tests.control_plane.conftest import listening, on_both_databases
from tests.control_plane.test_gateway_processes import add_launches
from tests.metrics.scrape import Scraped

pytestmark = on_both_databases

PING = "{ deploymentInfo { deploymentName } }"


def agent_called(label: str | None, *, seen_ago: float) -> Agent:
    return Agent(
        deployment="prod", agent_id=f"id of {label}", token_id="t", label=label, agent_type=None,
        heartbeat_at=time.time() - seen_ago, heartbeat="{}", errors="[]",
    )  # fmt: skip


async def test_requests_are_counted_by_operation(home: Home) -> None:
    """And who was turned away, and what the database took."""
    meter = PrometheusMeter(GATEWAY)

    async def changed(_added: set[str]) -> None:
        return

    async with open_gateway(home, changed, meter) as gateway, listening(gateway, home) as api:
        await api.client.post("/graphql", json={"query": PING})
        await api.client.post("/graphql", json={"query": "{ noSuchField }"})
        wrong = {"Dagster-Cloud-Api-Token": "wrong"}
        await api.client.post("/graphql", json={"query": PING}, headers=wrong)
        async with httpx.AsyncClient(verify=api.trust, trust_env=False) as stranger:
            await stranger.put(f"{api.url}/store_events")
        found = Scraped(meter.text([]).decode())

    def requests(operation: str, status: str) -> float:
        name = "hpc_gateway_request_duration_seconds_count"
        return found.value(name, operation=operation, status=status)

    assert requests("deploymentInfo.deploymentName", "200") == 1
    assert requests("webserver", "200") == 1
    assert requests("graphql", "401") == 1
    assert requests("store_events", "401") == 1
    refused = "hpc_gateway_authentication_failures_total"
    assert found.value(refused, listener="api", reason="unknown_token") == 1
    assert found.value(refused, listener="api", reason="no_token") == 1
    for kind in ("read", "write"):
        assert found.value("hpc_gateway_database_transaction_duration_seconds_count", kind=kind) > 0


async def test_queue_and_agents_are_read(database: Database, home: Home) -> None:
    """How much waits and for how long, and who is there."""
    tls = generated_certificate(home.tls, "127.0.0.1")
    readings, meter = Readings(database, home.root, tls.certificate), PrometheusMeter(GATEWAY)
    empty = Scraped(meter.text(readings.read()).decode())
    assert empty.value("hpc_gateway_requests_oldest_age_seconds") == 0
    assert empty.value("hpc_gateway_agents_connected") == 0

    await asyncio.to_thread(add_launches, Requests(database), 3)
    agents = Agents(database)
    agents.record(agent_called("cluster", seen_ago=1), [])
    agents.record(agent_called(None, seen_ago=10_000), [])
    found = Scraped(meter.text(readings.read()).decode())

    assert found.value("hpc_gateway_requests", state="queued") == 3
    assert found.value("hpc_gateway_requests", state="leased") == 0
    assert found.value("hpc_gateway_agents_connected") == 1
    heartbeat = "hpc_gateway_agent_last_heartbeat_timestamp_seconds"
    assert time.time() - found.value(heartbeat, agent="cluster") < 60
    assert time.time() - found.value(heartbeat, agent="id of None") > 9_000
    assert found.value("hpc_gateway_certificate_expiry_timestamp_seconds") > time.time()
    assert found.value("hpc_gateway_disk_free_bytes") > 0
