"""``hpc-agent control-plane start``: gateway, webserver and daemon as one process tree.

Opened in this order, closed in reverse: lock, listeners, gateway with its faces, agent API, the
UI's door, webserver, daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hpc_agent.control_plane.database_url import url_in
from hpc_agent.control_plane.door.config import UiConfig
from hpc_agent.control_plane.door.door import Door, open_door
from hpc_agent.control_plane.gateway import Gateway, open_gateway, serve_agents
from hpc_agent.control_plane.home import Home, prepare_home, prepare_socket
from hpc_agent.control_plane.listening import Listening
from hpc_agent.control_plane.metrics import Readings, show_metrics
from hpc_agent.control_plane.server import bind, url_of
from hpc_agent.control_plane.supervisor import Program, Supervisor
from hpc_agent.control_plane.tls import ServerTls, generated_certificate, own_certificate
from hpc_agent.control_plane.webserver_socket import async_client
from hpc_agent.control_plane.workspace import reload_webserver
from hpc_agent.errors import ConfigError
from hpc_agent.journal.files import Rotation
from hpc_agent.metrics.address import LocalAddress
from hpc_agent.metrics.gateway import GATEWAY
from hpc_agent.metrics.meter import meter_for
from hpc_agent.private_files import write_private
from hpc_agent.service.notify import Notifier
from hpc_agent.traces.tracer import tracer_for

READY_POLL_SECONDS = 0.2
STORAGE_THREADS = 32
"""For calls of Dagster's storages, which block: each run worker may have one in flight."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """What to start and where it listens; port 0 picks a free one."""

    home: Home
    listening: Listening = field(default_factory=Listening)
    webserver: bool = True
    daemon: bool = True
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    ui: UiConfig = field(default_factory=UiConfig)
    metrics: LocalAddress | None = None
    traces: str | None = None
    logs: Rotation = field(default_factory=Rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a running control plane is reached. ``ca`` is None with an admin's own certificate."""

    api: str
    ui: str | None
    ui_auth: str | None
    ca: str | None
    pid: int


async def run(options: StartOptions, ready: Callable[[Addresses], None]) -> None:
    """Run until SIGTERM or SIGINT; ``ready`` is called once everything answers."""
    prepare_home(options.home)
    _warn_of_split_storage(options.home)
    with (
        _only_one(options.home),
        contextlib.closing(bind(options.listening.host, options.listening.port)) as listener,
        _door(options, tls := _tls(options)) as door,
    ):
        control_plane = ControlPlane(options, listener, tls, door)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(STORAGE_THREADS, thread_name_prefix="storage"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            await control_plane.run(stop, ready)
        finally:
            options.home.running_json.unlink(missing_ok=True)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


class ControlPlane:
    """One running control plane; without a door it has no webserver."""

    def __init__(
        self, options: StartOptions, listener: socket.socket, tls: ServerTls, door: Door | None
    ) -> None:
        self._options = options
        self._listener = listener
        self._tls = tls
        self._door = door
        self._socket = options.home.webserver_socket
        self._meter = meter_for(options.metrics, GATEWAY)
        self._tracer = tracer_for(
            options.traces, service="hpc-agent-gateway", instance=socket.gethostname()
        )
        self._webserver = self._supervisor("webserver", _webserver_argv(options))
        self._daemon = self._supervisor("daemon", _daemon_argv(options))
        self._gateway: Gateway | None = None
        self._notifier = Notifier.from_environment()
        self._reload_wanted = asyncio.Event()
        self._is_new_location = False

    async def run(self, stop: asyncio.Event, ready: Callable[[Addresses], None]) -> None:
        """Run all parts until ``stop`` is set, or until one of ours fails for good."""
        async with open_gateway(
            self._options.home, self._workspace_changed, self._meter, self._tracer
        ) as gateway:
            self._gateway = gateway
            self._warn_of_local_logs(gateway)
            tasks = [asyncio.create_task(part) for part in self._parts(gateway)]
            stopping = asyncio.create_task(stop.wait())
            announcing = asyncio.create_task(self._announce(ready))
            try:
                done, _ = await asyncio.wait(
                    [*tasks, stopping], return_when=asyncio.FIRST_COMPLETED
                )
                for task in done - {stopping}:
                    task.result()
            finally:
                self._notifier.stopping()
                for task in (*tasks, stopping, announcing):
                    task.cancel()
                await asyncio.gather(*tasks, stopping, announcing, return_exceptions=True)
                await asyncio.to_thread(self._tracer.close)

    def _warn_of_local_logs(self, gateway: Gateway) -> None:
        home = self._options.home
        if self._door is None and gateway.services.compute_logs.stays_below(home.root):
            logger.warning(
                "compute logs that agents upload here stay in %s, where the webserver of another "
                "machine does not see them: set compute_logs in %s to a directory that both see, "
                "or to a cloud manager", home.root, home.dagster_yaml,
            )  # fmt: skip

    def _parts(self, gateway: Gateway) -> list[Coroutine[Any, Any, None]]:
        parts = [
            serve_agents(gateway.services, self._listener, self._tls),
            gateway.watch(),
            gateway.keep_leases(),
            gateway.nudge(),
            gateway.sweep(),
            self._reload_children(gateway),
        ]
        if self._notifier.watchdog_interval is not None:
            parts.append(self._tell_watchdog(self._notifier.watchdog_interval))
        if gateway.services.database.is_shared:
            parts.append(gateway.listen())
        if self._door is not None:
            prepare_socket(self._socket)
            parts += [self._door.serve(self._options.home, gateway.services), self._webserver.run()]
        if self._options.daemon:
            parts.append(self._daemon.run())
        if self._options.metrics is not None:
            readings = Readings(
                gateway.services.database, self._options.home.root, self._tls.certificate
            )
            parts.append(show_metrics(self._options.metrics, self._meter, readings))
        return parts

    async def _workspace_changed(self, added: set[str]) -> None:
        self._is_new_location = self._is_new_location or bool(added)
        self._reload_wanted.set()

    async def _reload_children(self, gateway: Gateway) -> None:
        """Make webserver and daemon see added and removed locations.

        The webserver reloads when asked. The daemon rereads workspace.yaml each 60 s
        (dagster/_daemon/controller.py) and fails runs of a location it does not know, so it is
        started afresh when a location is added.
        """
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            is_new, self._is_new_location = self._is_new_location, False
            if self._options.daemon and is_new:
                await self._daemon.restart()
            if self._door is not None and await self._webserver_answers():
                gateway.reloading = True
                try:
                    await reload_webserver(self._socket)
                finally:
                    gateway.reloading = False

    async def _announce(self, ready: Callable[[Addresses], None]) -> None:
        door, listening = self._door, self._options.listening
        addresses = Addresses(
            api=url_of(self._listener, listening.host, listening.name),
            ui=door.url if door else None,
            ui_auth=door.config.auth if door else None,
            ca=str(self._tls.ca) if self._tls.ca else None,
            pid=os.getpid(),
        )
        if door is not None:
            while not await self._webserver_answers():  # noqa: ASYNC110 another process
                await asyncio.sleep(READY_POLL_SECONDS)
        content = json.dumps({name: getattr(addresses, name) for name in Addresses.__slots__})
        write_private(self._options.home.running_json, content)
        ready(addresses)
        self._notifier.ready()

    async def _tell_watchdog(self, interval: float) -> None:
        """Tell systemd that this event loop turns."""
        while True:
            self._notifier.watchdog()
            await asyncio.sleep(interval)

    async def _webserver_answers(self) -> bool:
        try:
            async with async_client(self._socket, timeout=5) as client:
                return (await client.get("/server_info")).is_success
        except httpx.HTTPError:
            return False

    def _supervisor(self, name: str, argv: list[str]) -> Supervisor:
        home = self._options.home
        program = Program(
            name=name, argv=argv, log=home.logs / f"{name}.log", working_directory=home.root,
            environment={"DAGSTER_HOME": str(home.root), "PYTHONUNBUFFERED": "1"},
            rotation=self._options.logs,
        )  # fmt: skip
        return Supervisor(program, self._meter)


def _webserver_argv(options: StartOptions) -> list[str]:
    return [
        sys.executable, "-m", "hpc_agent.control_plane.stock_webserver",
        str(options.home.webserver_socket), str(options.home.workspace_yaml),
        str(options.home.updates_json),
    ]  # fmt: skip


def _daemon_argv(options: StartOptions) -> list[str]:
    return [
        sys.executable, "-m", "hpc_agent.control_plane.stock_daemon", "run",
        "--workspace", str(options.home.workspace_yaml),
    ]  # fmt: skip


def _tls(options: StartOptions) -> ServerTls:
    if options.tls_certificate and options.tls_key:
        return own_certificate(options.tls_certificate, options.tls_key)
    if options.tls_certificate or options.tls_key:
        raise ConfigError("--tls-cert and --tls-key belong together: give both or neither")
    listening = options.listening
    hosts = (listening.name or "", listening.host, listening.webserver_host, *options.ui.hosts)
    return generated_certificate(options.home.tls, *hosts)


@contextlib.contextmanager
def _door(options: StartOptions, tls: ServerTls) -> Iterator[Door | None]:
    if not options.webserver:
        yield None
        return
    where = options.listening
    door = open_door(options.ui, where.webserver_host, where.webserver_port, tls, where.name)
    with contextlib.closing(door.listener):
        yield door


def _warn_of_split_storage(home: Home) -> None:
    if home.chosen_database is not None and url_in(home.dagster_yaml) is None:
        logger.warning(
            "only the gateway's own tables are in PostgreSQL: %s keeps runs and events elsewhere, "
            "so no second gateway can share them; add storage: postgres: there", home.dagster_yaml,
        )  # fmt: skip


@contextlib.contextmanager
def _only_one(home: Home) -> Iterator[None]:
    """Keep a second control plane away from the same directory."""
    with (home.root / "control-plane.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"a control plane runs in {home.root} already: stop it, or give another --home"
            ) from error
        yield
