"""The gateway's metrics: what counts them, what is read of gauges, and where they are shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from hpc_agent.control_plane.presence import LEASE_SECONDS
from hpc_agent.control_plane.store.census import Census, take_census
from hpc_agent.control_plane.store.database import Database
from hpc_agent.metrics import gateway as metrics
from hpc_agent.metrics.address import LocalAddress
from hpc_agent.metrics.event_loop import sample_lag
from hpc_agent.metrics.files import readings_of_files
from hpc_agent.metrics.meter import Meter, Reading


async def show_metrics(address: LocalAddress, meter: Meter, readings: Readings) -> None:
    """Show the metrics until cancelled. Raises ConfigError when the address is taken."""
    from hpc_agent.metrics.endpoint import serving

    async def read() -> list[Reading]:
        return await asyncio.to_thread(readings.read)

    async with serving(address, meter, read):
        await sample_lag(meter, metrics.EVENT_LOOP_LAG)


class Readings:
    """Finds the gauges of what the gateway has and waits for; blocking, for worker threads."""

    def __init__(self, database: Database, home: Path, certificate: Path) -> None:
        self._database = database
        self._home = home
        self._certificate = certificate

    def read(self) -> list[Reading]:
        """Return them all."""
        from hpc_agent.metrics.prometheus import build_reading

        census, now = take_census(self._database), time.time()
        return [
            build_reading(metrics.BUILD_INFO),
            *_of_agents(census, now),
            *_of_requests(census, now),
            *readings_of_files(
                self._home, self._certificate, metrics.DISK_FREE, metrics.CERTIFICATE_EXPIRY
            ),
        ]


def _of_agents(census: Census, now: float) -> Iterator[Reading]:
    alive = sum(now - agent.heartbeat_at < LEASE_SECONDS for agent in census.agents)
    yield Reading(metrics.AGENTS_CONNECTED, alive)
    newest: dict[tuple[str, str], float] = {}
    for agent in census.agents:  # two may have one label
        name = agent.deployment, agent.name
        newest[name] = max(newest.get(name, 0.0), agent.heartbeat_at)
    for name, at in newest.items():
        yield Reading(metrics.AGENT_HEARTBEAT, at, name)


def _of_requests(census: Census, now: float) -> Iterator[Reading]:
    for each in census.requests:
        age = 0.0 if each.oldest_at is None else max(now - each.oldest_at, 0.0)
        yield Reading(metrics.REQUESTS, each.number, (each.state,))
        yield Reading(metrics.REQUESTS_OLDEST, age, (each.state,))
