"""The agent: opens its services in order, runs its loops, and closes in the opposite order.

Order: cluster, work directory, store, lease, agent API, relay, metrics, loops. Signals only set an
event. Stopping the agent stops no job: run workers and code servers go on, and the next start
adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent import __version__
from hpc_agent.agent.artifacts import ArtifactsLoop
from hpc_agent.agent.bells import Bells
from hpc_agent.agent.cancel import CancelLoop
from hpc_agent.agent.commands import CommandsLoop
from hpc_agent.agent.conclude import ConcludeLoop
from hpc_agent.agent.context import Context
from hpc_agent.agent.followers import FollowersLoop
from hpc_agent.agent.health import HealthLoop
from hpc_agent.agent.heartbeat import HeartbeatLoop
from hpc_agent.agent.housekeeping import HousekeepingLoop
from hpc_agent.agent.loop import Bell, repeat
from hpc_agent.agent.measure import MeasureLoop
from hpc_agent.agent.metrics import scheduler_calls, shown_metrics
from hpc_agent.agent.orphans import OrphansLoop
from hpc_agent.agent.partitions import PartitionsLoop
from hpc_agent.agent.poll import PollLoop
from hpc_agent.agent.pools import PoolsLoop, SupervisorsLoop
from hpc_agent.agent.positions import PositionsLoop
from hpc_agent.agent.relay import OpenedRelay, open_relay
from hpc_agent.agent.report import ReportLoop
from hpc_agent.agent.serve import ServeLoop
from hpc_agent.agent.submit import SubmitLoop
from hpc_agent.agent.watch import WatchLoop
from hpc_agent.agent.work_directory import WorkDirectoryLoop
from hpc_agent.agent.workspace import WorkspaceLoop
from hpc_agent.clock import SteadyClock
from hpc_agent.cluster.cluster import open_cluster
from hpc_agent.cluster.partition_book import partition_book
from hpc_agent.cluster.work_directory import check_work_directory, make_artifacts_directory
from hpc_agent.cluster.work_directory_owner import claim_work_directory
from hpc_agent.code_servers.bring_up import BringUp
from hpc_agent.code_servers.calls import Calls
from hpc_agent.code_servers.channels import Channels
from hpc_agent.code_servers.demand import Demand
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.health import Health
from hpc_agent.code_servers.life import ServerLife
from hpc_agent.code_servers.restarts import Restarts
from hpc_agent.code_servers.starting import Starting
from hpc_agent.code_servers.uploads import Uploads
from hpc_agent.config import AgentConfig, TokenSource
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.doorbell import answered
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.layers import check_layers
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.metrics.agent import AGENT
from hpc_agent.metrics.meter import meter_for
from hpc_agent.relay.server import Relay
from hpc_agent.service.notify import Notifier
from hpc_agent.store import meta, tracking
from hpc_agent.store.database import Store
from hpc_agent.store.meta import Identity
from hpc_agent.traces.tracer import tracer_for
from hpc_agent.workers.changes import Changes, Signature

log = logging.getLogger(__name__)

_SHUTDOWN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _NamedLoop:
    name: str
    step: Callable[[], Awaitable[float]]
    bell: Bell


@dataclass(frozen=True, slots=True, kw_only=True)
class _CodeServers:
    fleet: Fleet
    life: ServerLife
    channels: Channels
    demand: Demand


async def run_agent(
    config: AgentConfig, stop: asyncio.Event, *, take_over_work_dir: bool = False
) -> None:
    """Run the agent until ``stop`` is set; ``take_over_work_dir`` from an agent that is lost.

    Raises ConfigError, StoreError (LeaseHeldError among them) at start; once it runs, only
    what ``loop.FATAL`` lists.
    """
    notifier = Notifier.from_environment()
    async with contextlib.AsyncExitStack() as stack:
        loops, context = await _open(config, stack, stop, take_over_work_dir)
        log.info("agent %s %s serves %s", __version__, context.agent_id, config.control_plane.url)
        notifier.ready()
        notifier.status(f"serving {config.control_plane.url}")
        await _run_until(context, loops, notifier)
        notifier.stopping()
        log.info("stopping; jobs go on")


def stop_on_signals(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT set the event."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _open(
    config: AgentConfig,
    stack: contextlib.AsyncExitStack,
    stop: asyncio.Event,
    take_over_work_dir: bool,
) -> tuple[list[_NamedLoop], Context]:
    check_layers(config)
    token = await asyncio.to_thread(TokenSource, config)
    meter = meter_for(config.metrics.address, AGENT)
    cluster = await stack.enter_async_context(open_cluster(config, scheduler_calls(meter)))
    work = WorkDirectory(config.work_dir, cluster.files)
    await asyncio.to_thread(
        check_work_directory, work, warn_if_local=config.scheduler.kind == "slurm"
    )
    await asyncio.to_thread(make_artifacts_directory, config.artifacts_directory, cluster.files)
    program = await asyncio.to_thread(build_node_program, work.lib, work.files)
    bells, clock = Bells(), SteadyClock()
    store = Store(config.home, on_news=bells.ring_for, meter=meter)
    await store.open()
    stack.push_async_callback(store.close)
    owner = str(uuid.uuid4())
    identity = await _take_over(store, owner, clock)
    stack.push_async_callback(store.run, lambda db: meta.release_lease(db, owner))
    await asyncio.to_thread(
        claim_work_directory,
        work,
        identity.agent_id,
        home=config.home,
        take_over=take_over_work_dir,
    )
    api = await stack.enter_async_context(
        AgentApi(config.control_plane, token=token, renew=token.renew, agent_id=identity.agent_id)
    )
    tracer = await asyncio.to_thread(
        tracer_for, config.traces.endpoint, service="hpc-agent", instance=identity.agent_id
    )
    stack.push_async_callback(asyncio.to_thread, tracer.close)
    tokens = JobTokens(identity.token_secret)
    context = Context(
        config=config,
        agent_id=identity.agent_id,
        store=store,
        api=api,
        scheduler=cluster.scheduler,
        preparation=JobPreparation(
            work=work,
            templates=Templates(config.templates_dir),
            tokens=tokens,
            program=program,
            node_python=config.node_python,
            account=cluster.account,
        ),
        changes=Changes(
            store,
            Signature(
                scheduler=cluster.scheduler.name,
                agent_id=identity.agent_id,
                agent_label=config.label,
            ),
            clock=clock,
            meter=meter,
        ),
        bells=bells,
        partitions=partition_book(config, cluster.scheduler, clock),
        clock=clock,
        meter=meter,
        tracer=tracer,
        stop=stop,
    )
    await store.run(context.drain.recall)
    opened = await stack.enter_async_context(
        open_relay(context, tokens, cluster=cluster, program=program)
    )
    relay = opened.relay
    await stack.enter_async_context(shown_metrics(context, relay))
    await stack.enter_async_context(answered(config.home, lambda: _look_around(context, relay)))
    demand = Demand(config.code_servers.server_ttl, context.clock)
    channels = Channels(relay)
    stack.push_async_callback(channels.close)
    servers = _code_servers(context, channels, demand)
    await servers.fleet.recall()
    return _loops(context, opened, servers, owner), context


def _look_around(context: Context, relay: Relay) -> None:
    """Somebody has changed a database of ours: which of them, and what in it, is soon found out."""
    context.bells.commands.ring()
    context.bells.report.ring()
    relay.look_into_spool()


async def _take_over(store: Store, owner: str, clock: SteadyClock) -> Identity:
    def take(db: Database) -> Identity:
        # Others compare the lease with their own time of day.
        meta.take_lease(db, owner, time.time())
        tracking.bound_waits(db, clock())
        return meta.identity(db)

    return await store.run(take)


def _code_servers(context: Context, channels: Channels, demand: Demand) -> _CodeServers:
    restarts = Restarts(context.clock)
    life = ServerLife(
        store=context.store,
        changes=context.changes,
        channels=channels,
        demand=demand,
        restarts=restarts,
        clock=context.clock,
    )
    starting = Starting(
        config=context.config,
        store=context.store,
        preparation=context.preparation,
        changes=context.changes,
        clock=context.clock,
    )
    fleet = Fleet(
        config=context.config,
        store=context.store,
        starting=starting,
        life=life,
        restarts=restarts,
        demand=demand,
        clock=context.clock,
    )
    return _CodeServers(fleet=fleet, life=life, channels=channels, demand=demand)


def _loops(
    context: Context, opened: OpenedRelay, servers: _CodeServers, owner: str
) -> list[_NamedLoop]:
    bells, fleet, relay = context.bells, servers.fleet, opened.relay
    bring_up = BringUp(
        settings=context.config.code_servers,
        store=context.store,
        uploads=Uploads(context.api, context.config.code_servers),
        life=servers.life,
        channels=servers.channels,
        tunnels=relay,
        clock=context.clock,
    )
    serve = ServeLoop(
        context,
        fleet=fleet,
        calls=Calls(
            fleet=fleet,
            life=servers.life,
            channels=servers.channels,
            demand=servers.demand,
            on_demand=bells.workspace.ring,
        ),
        demand=servers.demand,
    )
    heartbeat = HeartbeatLoop(context, fleet, spooled=relay.holds_events_of, load=serve.load)
    return [
        *([_NamedLoop("relay port", opened.port.step, Bell())] if opened.port else []),
        *_health_loop(context, servers),
        _NamedLoop("lease", HousekeepingLoop(context, owner).step, Bell()),
        _NamedLoop("work directory", WorkDirectoryLoop(context).step, Bell()),
        *_artifacts_loop(context),
        *_partitions_loop(context),
        _NamedLoop("poll", PollLoop(context).step, Bell()),
        _NamedLoop("commands", CommandsLoop(context).step, bells.commands),
        _NamedLoop("serve", serve.step, bells.serve),
        _NamedLoop("submit", SubmitLoop(context).step, bells.submit),
        _NamedLoop("watch", WatchLoop(context, heard=opened.reports.heard).step, bells.watch),
        _NamedLoop("cancel", CancelLoop(context).step, bells.cancel),
        _NamedLoop(
            "conclude",
            ConcludeLoop(
                context,
                servers.life,
                spooled=relay.holds_events_of,
                revoke=opened.reports.forget,
            ).step,
            bells.conclude,
        ),
        _NamedLoop("followers", FollowersLoop(context, opened.run_events).step, bells.followers),
        *_pools_loop(context, opened),
        _NamedLoop("measure", MeasureLoop(context).step, bells.measure),
        _NamedLoop("positions", PositionsLoop(context).step, Bell()),
        _NamedLoop("orphans", OrphansLoop(context).step, Bell()),
        _NamedLoop("report", ReportLoop(context).step, bells.report),
        _NamedLoop("heartbeat", heartbeat.step, bells.heartbeat),
        _NamedLoop("workspace", WorkspaceLoop(context, fleet, bring_up).step, bells.workspace),
    ]


def _pools_loop(context: Context, opened: OpenedRelay) -> list[_NamedLoop]:
    bells, desk = context.bells, opened.pools
    return [
        _NamedLoop("pool supervisors", SupervisorsLoop(desk).step, bells.supervisors),
        _NamedLoop("pools", PoolsLoop(context, desk).step, bells.pools),
    ]


def _artifacts_loop(context: Context) -> list[_NamedLoop]:
    """By SFTP nobody walks through a file system."""
    if context.config.has_files_elsewhere:
        return []
    return [_NamedLoop("artifacts", ArtifactsLoop(context).step, Bell())]


def _partitions_loop(context: Context) -> list[_NamedLoop]:
    seconds = context.config.scheduler.partitions_seconds
    if seconds is None or context.config.scheduler.kind != "slurm":
        return []
    return [_NamedLoop("partitions", PartitionsLoop(context, every_seconds=seconds).step, Bell())]


def _health_loop(context: Context, servers: _CodeServers) -> list[_NamedLoop]:
    patience = context.config.code_servers.unresponsive_timeout_seconds
    if patience is None:
        return []
    health = Health(servers.channels, patience_seconds=patience, clock=context.clock)
    loop = HealthLoop(context, servers.life, health)
    return [_NamedLoop("health", loop.step, Bell())]


async def _run_until(context: Context, loops: Sequence[_NamedLoop], notifier: Notifier) -> None:
    running = [
        asyncio.create_task(
            repeat(loop.name, loop.step, loop.bell, context.troubles, context.meter),
            name=loop.name,
        )
        for loop in loops
    ]
    if notifier.watchdog_interval:
        running.append(asyncio.create_task(_feed_watchdog(notifier), name="watchdog"))
    stopped = asyncio.create_task(context.stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([*running, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        for task in [*running, stopped]:
            task.cancel()
        async with asyncio.timeout(_SHUTDOWN_SECONDS):
            await asyncio.gather(*running, stopped, return_exceptions=True)
            await context.tasks.dismiss()


async def _feed_watchdog(notifier: Notifier) -> None:
    """Fed from the event loop: an agent whose loop hangs is restarted."""
    while True:
        notifier.watchdog()
        await asyncio.sleep(notifier.watchdog_interval or 1.0)
