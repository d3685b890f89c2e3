"""The relay as the agent uses it: one object, one lifecycle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hpc_agent.inbound.admission import Admission
from hpc_agent.inbound.listener import HTTP, Listener
from hpc_agent.metrics.agent import RELAY_TURNED_AWAY
from hpc_agent.metrics.meter import SILENT, Meter
from hpc_agent.outgoing.queue import Backlog
from hpc_agent.private_directories import private_directory
from hpc_agent.private_files import require_private, write_private
from hpc_agent.relay.address import advertised_hosts, announcement, bind, split_host
from hpc_agent.relay.app import RelayApp
from hpc_agent.relay.certificate import load_or_create
from hpc_agent.relay.delivery import Delivery
from hpc_agent.relay.identity import JobDirectory, OnReport
from hpc_agent.relay.pools import PoolDesk
from hpc_agent.relay.run_events import RunEvents
from hpc_agent.relay.settings import RelaySettings
from hpc_agent.relay.spool import FILE_NAME, Spool
from hpc_agent.relay.steps import StepDesk
from hpc_agent.relay.tunnels import TUNNEL, Tunnels
from hpc_agent.relay.upstream import Upstream
from hpc_agent.tls import server_context

log = logging.getLogger(__name__)

# Far longer than a write takes.
_SENT_SECONDS = 0.5


class Relay:
    """Listens for the agent's jobs: ``async with Relay(…) as relay``.

    Stopping it leaves jobs alone: they find the next start through ``relay.json``.
    """

    def __init__(
        self,
        settings: RelaySettings,
        *,
        directory: JobDirectory,
        upstream: Upstream,
        on_report: OnReport,
        meter: Meter = SILENT,
        steps: StepDesk | None = None,
        run_events: RunEvents | None = None,
        pools: PoolDesk | None = None,
    ) -> None:
        """Prepare one; ``steps`` takes what runs ask for, where they may ask for jobs at all."""
        self._settings = settings
        self._directory = directory
        self._upstream = upstream
        self._on_report = on_report
        self._meter = meter
        self._steps = steps
        self._run_events = run_events
        self._pools = pools
        self._spool = Spool(settings.state_dir / FILE_NAME, max_bytes=settings.spool_max_bytes)
        self._stack = contextlib.AsyncExitStack()
        self._tunnels: Tunnels
        self._delivery: Delivery
        self._listener: Listener
        self._certificate = ""
        self.port = 0

    async def __aenter__(self) -> Self:
        """Start. Raises ConfigError when the port cannot be bound, StoreError for the spool."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def spooled(self) -> int:
        """How many event writes wait for the control plane."""
        return self._spool.pending

    def holds_events_of(self, run_id: str) -> bool:
        """Whether event writes of a run wait for the control plane, or are on their way to it."""
        return self._spool.holds(run_id) or self._delivery.is_sending(run_id)

    def stalls_events_of(self, run_id: str) -> bool:
        """Whether event writes of a run wait, or have been on their way for longer than usual.

        Of a run that executes one is always on its way.
        """
        return self._spool.holds(run_id) or self._delivery.is_sending(
            run_id, for_seconds=_SENT_SECONDS
        )

    async def backlog(self) -> Backlog:
        """Return how many event writes wait or are set aside, and since when the oldest waits."""
        return await self._spool.backlog()

    def look_into_spool(self) -> None:
        """Send what may be sent now: somebody else has changed the spool."""
        self._delivery.look()

    @property
    def admission(self) -> Admission:
        """Whose connections are open."""
        return self._listener.admission

    @property
    def control_plane_away(self) -> bool:
        """Whether the control plane did not take the last event write."""
        return self._delivery.away

    def tunnel_socket(self, key: str) -> Path:
        """Return the unix socket that leads to a code server."""
        return self._tunnels.socket(key)

    def connected(self, key: str) -> bool:
        """Whether a code server has connections parked."""
        return self._tunnels.connected(key)

    async def wait_connected(self, key: str, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until a code server has connections parked; False after ``timeout`` seconds."""
        return await self._tunnels.wait_connected(key, timeout)

    def announcement(self, hosts: Iterable[str], port: int) -> str:
        """Return ``relay.json`` for jobs that reach this relay at these hosts (or host:port)."""
        return announcement(hosts, port, self._certificate)

    async def forget(self, key: str) -> None:
        """Drop the tunnels of a code server that is gone for good."""
        await self._tunnels.forget(key)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        await self._spool.open()
        stack.push_async_callback(self._spool.close)
        prepared = await asyncio.to_thread(_prepare, settings)
        stack.callback(prepared.listening.close)
        if prepared.temporary is not None:
            stack.push_async_callback(asyncio.to_thread, prepared.temporary.cleanup)
        self._delivery = Delivery(
            self._upstream, self._spool, patience_seconds=settings.set_aside_after_seconds
        )
        drain = asyncio.create_task(self._delivery.run(), name="relay spool drain")
        drain.add_done_callback(_note_failure)
        stack.push_async_callback(_cancel, drain)
        self._tunnels = Tunnels(prepared.socket_dir, self._directory)
        stack.push_async_callback(self._tunnels.close)
        app = RelayApp(
            directory=self._directory,
            upstream=self._upstream,
            delivery=self._delivery,
            on_report=self._on_report,
            secret=prepared.secret,
            patience_seconds=settings.patience_seconds,
            steps=self._steps,
            pools=self._pools,
            run_events=self._run_events,
        ).build(self._meter)
        self._listener = Listener(
            app,
            tls=prepared.tls,
            limits=settings.limits,
            allow=settings.allow,
            streams={TUNNEL: self._tunnels.serve},
            on_turned_away=lambda: self._meter.count(RELAY_TURNED_AWAY),
        )
        self.port = int(prepared.listening.getsockname()[1])
        await self._listener.start(prepared.listening)
        stack.push_async_callback(self._listener.stop, settings.stop_seconds)
        self._certificate = prepared.certificate
        if settings.work_dir is not None:
            told = self.announcement(prepared.hosts, self.port)
            await asyncio.to_thread(_announce, settings.work_dir, told)
        log.info("relay listens on %s:%d", settings.bind, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """What is on disk, what jobs are told, and the bound port."""

    hosts: tuple[str, ...]
    certificate: str
    tls: ssl.SSLContext
    secret: bytes
    socket_dir: Path
    temporary: tempfile.TemporaryDirectory[str] | None
    listening: socket.socket


def _prepare(settings: RelaySettings) -> _Prepared:
    """Read or make the relay's files and bind its port. Raises ConfigError."""
    private_directory(settings.state_dir)
    hosts = advertised_hosts(settings)
    certificate = load_or_create(settings.state_dir, [split_host(host)[0] for host in hosts])
    temporary = None
    if settings.socket_dir is None:
        temporary = tempfile.TemporaryDirectory(prefix="hpc-agent-", dir="/tmp")
        socket_dir = Path(temporary.name)
    else:
        socket_dir = settings.socket_dir
        private_directory(socket_dir)
    return _Prepared(
        hosts=hosts,
        certificate=certificate.pem,
        # Each connection lives long; tickets would only cost memory and confuse idle checks.
        tls=server_context(
            certificate.certificate_file, certificate.key_file, [HTTP, TUNNEL], tickets=False
        ),
        secret=_secret(settings.state_dir),
        socket_dir=socket_dir,
        temporary=temporary,
        listening=bind(settings),
    )


def _announce(work_dir: Path, told: str) -> None:
    private_directory(work_dir)
    write_private(work_dir / "relay.json", told, durable=True)


def _note_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("%s ended: spooled events stay on disk", task.get_name(), exc_info=error)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _secret(state_dir: Path) -> bytes:
    path = state_dir / "relay-secret"
    if not path.exists():
        write_private(path, secrets.token_bytes(32), durable=True)
    require_private(path)
    return path.read_bytes()
