"""The relay as the agent uses it: one object, one lifecycle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hpc_agent.errors import ConfigError
from hpc_agent.relay.app import RelayApp
from hpc_agent.relay.certificate import load_or_create, server_context, write_private
from hpc_agent.relay.delivery import Delivery
from hpc_agent.relay.identity import JobDirectory, OnReport
from hpc_agent.relay.listener import HTTP, TUNNEL, Listener, Network
from hpc_agent.relay.spool import Spool
from hpc_agent.relay.tunnels import Tunnels
from hpc_agent.relay.upstream import Upstream

log = logging.getLogger(__name__)

_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104  (compared with, not bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Where the relay listens and keeps its files.

    ``port`` 0 keeps the port of the last start when it is free. ``advertise`` are the hosts (or
    ``host:port``) that compute nodes should try, in order; empty means this host's name and the
    bind address. ``allow`` empty admits every network. ``state_dir`` is on local disk, ``work_dir``
    on the shared file system. ``socket_dir`` None makes a temporary directory.
    """

    state_dir: Path
    work_dir: Path
    bind: str = "0.0.0.0"  # noqa: S104  (compute nodes must reach it; every request needs a token)
    port: int = 0
    advertise: tuple[str, ...] = ()
    allow: tuple[Network, ...] = ()
    socket_dir: Path | None = None
    spool_max_bytes: int = 4 << 30
    stop_seconds: float = 3.0


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
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._upstream = upstream
        self._on_report = on_report
        self._spool = Spool(
            settings.state_dir / "relay-spool.sqlite", max_bytes=settings.spool_max_bytes
        )
        self._stack = contextlib.AsyncExitStack()
        self._tunnels: Tunnels
        self._delivery: Delivery
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
        """Whether event writes of a run wait for the control plane."""
        return self._spool.holds(run_id)

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

    async def forget(self, key: str) -> None:
        """Drop the tunnels of a code server that is gone for good."""
        await self._tunnels.forget(key)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        hosts = _advertised_hosts(settings)
        certificate = await asyncio.to_thread(
            load_or_create, settings.state_dir, [_split(host)[0] for host in hosts]
        )
        await self._spool.open()
        stack.push_async_callback(self._spool.close)
        self._delivery = Delivery(self._upstream, self._spool)
        drain = asyncio.create_task(self._delivery.run(), name="relay spool drain")
        stack.push_async_callback(_cancel, drain)
        self._tunnels = Tunnels(self._socket_dir(stack), self._directory)
        stack.push_async_callback(self._tunnels.close)
        app = RelayApp(
            directory=self._directory,
            upstream=self._upstream,
            delivery=self._delivery,
            on_report=self._on_report,
            secret=_secret(settings.state_dir),
        )
        listener = Listener(
            app.build(),
            self._tunnels.serve,
            tls=server_context(certificate, [HTTP, TUNNEL]),
            allow=settings.allow,
        )
        sock = _bind(settings)
        self.port = int(sock.getsockname()[1])
        await listener.start(sock)
        stack.push_async_callback(listener.stop, settings.stop_seconds)
        _announce(settings, hosts, self.port, certificate.pem)
        log.info("relay listens on %s:%d", settings.bind, self.port)

    def _socket_dir(self, stack: contextlib.AsyncExitStack) -> Path:
        directory = self._settings.socket_dir
        if directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="hpc-agent-", dir="/tmp")
            return Path(stack.enter_context(temporary))
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        return directory


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _bind(settings: RelaySettings) -> socket.socket:
    """Bind the given port, else the last one, else any."""
    if settings.port:
        return _bound(settings.bind, settings.port)
    memory = settings.state_dir / "relay-port"
    with contextlib.suppress(OSError, ValueError, ConfigError):
        return _bound(settings.bind, int(memory.read_text()))
    sock = _bound(settings.bind, 0)
    write_private(memory, f"{sock.getsockname()[1]}\n".encode())
    return sock


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only on sockets that name their protocol; with it every
    # answer waits 40 ms for the peer's delayed acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"the relay cannot listen on {host}:{port}: {error.strerror}; "
            "set relay.bind and relay.port in agent.yaml to an address and a port that are free"
        ) from error
    sock.setblocking(False)
    return sock


def _secret(state_dir: Path) -> bytes:
    path = state_dir / "relay-secret"
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def _advertised_hosts(settings: RelaySettings) -> tuple[str, ...]:
    if settings.advertise:
        return settings.advertise
    if settings.bind in _WILDCARDS:
        return (socket.gethostname(),)
    return (settings.bind,)


def _split(address: str) -> tuple[str, str]:
    """Split ``host:port``, ``host``, ``[v6]:port`` or a bare IPv6 address into host and port."""
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        return host, port.lstrip(":")
    if address.count(":") == 1:
        host, _, port = address.partition(":")
        return host, port
    return address, ""


def _announce(settings: RelaySettings, hosts: tuple[str, ...], port: int, certificate: str) -> None:
    addresses = []
    for address in hosts:
        host, own_port = _split(address)
        addresses.append(
            f"[{host}]:{own_port or port}" if ":" in host else f"{host}:{own_port or port}"
        )
    content = {"version": 1, "addresses": addresses, "certificate": certificate}
    settings.work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(settings.work_dir / "relay.json", json.dumps(content).encode())
    directory = os.open(settings.work_dir, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
