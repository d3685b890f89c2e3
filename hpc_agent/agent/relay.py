"""The relay as agent.yaml has it: where it listens, and by which way jobs reach it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.agent.context import Context
from hpc_agent.agent.job_reports import JobReports
from hpc_agent.agent.relay_port import RelayPortLoop
from hpc_agent.cluster.cluster import Cluster
from hpc_agent.config import AgentConfig
from hpc_agent.inbound.limits import Limits
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.outgoing.http_client import http_client
from hpc_agent.pools.desk import Desk as Pools
from hpc_agent.relay.run_events import RunEvents
from hpc_agent.relay.server import Relay
from hpc_agent.relay.settings import RelaySettings
from hpc_agent.relay.upstream import Upstream
from hpc_agent.steps.desk import Desk


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRelay:
    """The relay and what belongs to it: who receives what jobs report, who follows runs, its port.

    ``pools`` gives their work out; ``port`` is the one on the login node, where it has one.
    """

    relay: Relay
    reports: JobReports
    run_events: RunEvents
    pools: Pools
    port: RelayPortLoop | None


@asynccontextmanager
async def open_relay(
    context: Context, tokens: JobTokens, *, cluster: Cluster, program: Path
) -> AsyncIterator[OpenedRelay]:
    """Yield the relay of an agent. Raises what Relay raises at its start."""

    def holds_events_of(run_id: str) -> bool:
        return relay.holds_events_of(run_id)

    def stalls_events_of(run_id: str) -> bool:
        return relay.stalls_events_of(run_id)

    reports = JobReports(context, tokens, spooled=holds_events_of)
    run_events = RunEvents()
    desk = Desk(
        config=context.config,
        store=context.store,
        preparation=context.preparation,
        partitions=context.partitions,
        ending=context.step_ending,
        run_events=run_events,
        spooled=stalls_events_of,
        clock=context.clock,
    )
    pools = Pools(
        config=context.config, store=context.store, changes=context.changes, clock=context.clock
    )
    async with contextlib.AsyncExitStack() as stack:
        relay = Relay(
            relay_settings(context.config, is_forwarded=cluster.login_node is not None),
            directory=reports,
            upstream=await _upstream(context, stack),
            on_report=reports.receive,
            meter=context.meter,
            steps=desk,
            run_events=run_events,
            pools=pools,
        )
        await stack.enter_async_context(relay)
        port = None
        if cluster.login_node is not None:
            port = RelayPortLoop(
                context.config,
                relay,
                login_node=cluster.login_node,
                work=context.preparation.work,
                program=program,
                state_dir=context.config.home,
            )
            stack.push_async_callback(port.close)
        yield OpenedRelay(
            relay=relay, reports=reports, run_events=run_events, pools=pools, port=port
        )


def relay_settings(config: AgentConfig, *, is_forwarded: bool) -> RelaySettings:
    """Return the relay's settings; what is said of addresses holds where jobs connect."""
    settings = config.relay
    set_aside_after_seconds = config.control_plane.set_aside_after_seconds
    if is_forwarded:
        return RelaySettings(
            state_dir=config.home,
            work_dir=None,
            bind="127.0.0.1",
            spool_max_bytes=settings.spool_max_bytes,
            set_aside_after_seconds=set_aside_after_seconds,
            # The forwarder on the login node is everybody's address.
            limits=Limits(strangers_per_peer=Limits().strangers),
        )
    return RelaySettings(
        state_dir=config.home,
        work_dir=config.work_dir,
        bind=settings.bind,
        port=settings.port,
        advertise=tuple(settings.advertise),
        allow=tuple(settings.allow),
        spool_max_bytes=settings.spool_max_bytes,
        set_aside_after_seconds=set_aside_after_seconds,
    )


async def _upstream(context: Context, stack: contextlib.AsyncExitStack) -> Upstream:
    # Clients of their own: the agent's calls do not queue behind those of its jobs.
    api, storage = [
        await stack.enter_async_context(
            http_client(
                base_url=base_url,
                trust=context.api.trust,
                proxy=context.config.control_plane.proxy,
                connections=400,
                kept=40,
            )
        )
        for base_url in (context.config.control_plane.url, "")
    ]
    return Upstream(
        api=api,
        storage=storage,
        addresses=context.api.addresses,
        credentials=context.api.headers,
    )
