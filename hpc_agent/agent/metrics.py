"""The agent's metrics: what counts them, what is read of gauges, and where they are shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.metrics import agent as metrics
from hpc_agent.metrics.event_loop import sample_lag
from hpc_agent.metrics.files import readings_of_files
from hpc_agent.metrics.meter import SILENT, Meter, Reading
from hpc_agent.outgoing.queue import Backlog
from hpc_agent.relay.certificate import certificate_in
from hpc_agent.relay.server import Relay
from hpc_agent.slurm.observation import CallOutcome, OnCall, nobody
from hpc_agent.store import pools
from hpc_agent.store.census import Census, take_census


def scheduler_calls(meter: Meter) -> OnCall:
    """Return who is told of each call of Slurm."""
    if meter is SILENT:
        return nobody

    def on_call(name: str, outcome: CallOutcome, seconds: float) -> None:
        meter.observe(metrics.SCHEDULER_CALLS, seconds, name, outcome)

    return on_call


@asynccontextmanager
async def shown_metrics(context: Context, relay: Relay) -> AsyncIterator[None]:
    """Show the metrics while the block runs, if they are on. Raises ConfigError."""
    address = context.config.metrics.address
    if address is None:
        yield
        return
    from hpc_agent.metrics.endpoint import serving

    readings = Readings(context, relay)
    lag = asyncio.create_task(sample_lag(context.meter, metrics.EVENT_LOOP_LAG), name="lag")
    try:
        async with serving(address, context.meter, readings.read):
            yield
    finally:
        lag.cancel()
        await asyncio.wait([lag])


class Readings:
    """Finds the gauges of what the agent has and waits for."""

    def __init__(self, context: Context, relay: Relay) -> None:
        self._context = context
        self._relay = relay

    async def read(self) -> list[Reading]:
        """Return them all. Raises StoreError."""
        from hpc_agent.metrics.prometheus import build_reading

        context = self._context
        census = await context.store.run(take_census)
        spool, now = await self._relay.backlog(), context.wall()
        return [
            build_reading(metrics.BUILD_INFO),
            *_of_workers(census),
            *await context.store.run(self._of_pools),
            *(
                Reading(metrics.PAUSED, 1, (each.location, each.deployment))
                for each in census.paused
            ),
            Reading(metrics.DRAINING, float(context.drain.is_on)),
            Reading(metrics.REQUESTS_OPEN, census.requests),
            Reading(metrics.REQUESTS_OLDEST, _age(census.oldest_request_at, now)),
            *_of_queue("outbox", census.outbox, now),
            *_of_queue("spool", spool, now),
            *self._of_relay(),
            *await asyncio.to_thread(
                readings_of_files,
                context.config.home,
                certificate_in(context.config.home).certificate_file,
                metrics.DISK_FREE,
                metrics.RELAY_CERTIFICATE_EXPIRY,
            ),
        ]

    def _of_pools(self, db: Database) -> list[Reading]:
        names = sorted(self._context.config.pools)
        return [reading for name in names for reading in _of_pool(db, name)]

    def _of_relay(self) -> Iterator[Reading]:
        admission = self._relay.admission
        known = admission.connections - admission.strangers
        yield Reading(metrics.RELAY_CONNECTIONS, known, ("yes",))
        yield Reading(metrics.RELAY_CONNECTIONS, admission.strangers, ("no",))


def _of_workers(census: Census) -> Iterator[Reading]:
    for worker in census.workers:
        labels = worker.kind, worker.phase, worker.state, worker.location
        yield Reading(metrics.JOBS, worker.number, labels)
    for server in census.servers:
        yield Reading(metrics.CODE_SERVERS, server.number, (server.status, server.location))


def _of_pool(db: Database, name: str) -> Iterator[Reading]:
    found = pools.occupancy(db, name)
    yield Reading(metrics.POOL_ALLOCATIONS, found.allocations, (name,))
    yield Reading(metrics.POOL_SLOTS, found.busy, (name, "busy"))
    yield Reading(metrics.POOL_SLOTS, max(0, found.slots - found.busy), (name, "free"))
    yield Reading(metrics.POOL_WAITING, found.waiting, (name,))
    yield Reading(metrics.POOL_STOPPED, float(pools.stopped(db, name) is not None), (name,))


def _of_queue(name: str, backlog: Backlog, now: float) -> Iterator[Reading]:
    yield Reading(metrics.OUTGOING, backlog.waiting, (name, "waiting"))
    yield Reading(metrics.OUTGOING, backlog.set_aside, (name, "set_aside"))
    yield Reading(metrics.OUTGOING_OLDEST, _age(backlog.oldest_at, now), (name,))


def _age(since: float | None, now: float) -> float:
    return 0.0 if since is None else max(now - since, 0.0)
