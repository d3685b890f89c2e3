"""The gateway's life: faces inside, the agent API outside, and the loops that keep them true."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from hpc_agent.control_plane.agents_seen import agents_seen
from hpc_agent.control_plane.faces.agent_calls import AgentCaller
from hpc_agent.control_plane.faces.gallery import Gallery
from hpc_agent.control_plane.faces.servicer import Face
from hpc_agent.control_plane.faces.view import LocationView, view_of
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.http.app import make_app
from hpc_agent.control_plane.instance import keep_connections, open_instance
from hpc_agent.control_plane.server import serve
from hpc_agent.control_plane.services import Services, build_services
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.locations import Location
from hpc_agent.control_plane.store.postgresql import listen
from hpc_agent.control_plane.store.requests import Request
from hpc_agent.control_plane.store.sessions import Sessions
from hpc_agent.control_plane.tls import ServerTls
from hpc_agent.control_plane.updates import write_updates
from hpc_agent.control_plane.workspace import write_workspace
from hpc_agent.inbound.limits import Limits
from hpc_agent.isolation import for_each
from hpc_agent.metrics.meter import SILENT, Meter
from hpc_agent.traces.tracer import SILENT as UNTRACED
from hpc_agent.traces.tracer import Tracer

WATCH_SECONDS = 0.5
LEASE_CHECK_SECONDS = 5.0
NUDGE_SECONDS = 60.0
SWEEP_SECONDS = 600.0
AGENT_IDLE_SECONDS = 75.0

logger = logging.getLogger(__name__)


class Gateway:
    """Serves one Dagster instance; ``workspace_changed`` is called with the names added."""

    def __init__(
        self,
        home: Home,
        services: Services,
        workspace_changed: Callable[[set[str]], Awaitable[None]],
    ) -> None:
        self._home = home
        self.services = services
        self._workspace_changed = workspace_changed
        caller = AgentCaller(services.queue, services.presence, services.agents)
        self._gallery = Gallery(
            lambda view: Face(
                view, repositories=services.repositories, caller=caller, runs=services.runs,
                redeploy=self._redeploy,
            ),
            home.socket,
        )  # fmt: skip
        self._shown: tuple[int, bool] | None = None
        self._deployed: dict[tuple[str, str], float] = {}
        self.reloading = False
        """Set while webserver or daemon reload on our word: their ReloadCode calls mean nothing."""

    async def refresh(self) -> None:
        """Bring faces, workspace.yaml and agents up to date with the database."""
        version = await asyncio.to_thread(self.services.locations.version)
        # When the last agent falls silent, nothing is written.
        shown = version, self.services.presence.any_alive()
        if shown == self._shown:
            return
        self._shown = shown
        before = set(self._gallery.sockets())
        views = await asyncio.to_thread(self._views)
        await self._gallery.show(views)
        updates = {view.face_name: view.update for view in views if view.update is not None}
        await asyncio.to_thread(write_updates, self._home.updates_json, updates)
        await self._announce_deploys()
        sockets = self._gallery.sockets()
        if await asyncio.to_thread(write_workspace, self._home.workspace_yaml, sockets):
            await self._workspace_changed(set(sockets) - before)

    def view(self, location_name: str) -> LocationView:
        """Return what the face of a location shows. Raises KeyError."""
        return self._gallery.view(location_name)

    async def watch(self) -> None:
        """Notice what other processes (``control-plane deploy``) write into the database."""
        while True:
            try:
                await self.refresh()
            except Exception:
                logger.exception("cannot refresh the workspace; trying again")
                self._shown = None
            await asyncio.sleep(WATCH_SECONDS)

    async def keep_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_CHECK_SECONDS)
            try:
                await self.services.queue.share_presence()
                await self.services.queue.recover_leases()
                await self.settle_abandoned()
                for request in await self.services.queue.launches_in_wait():
                    await self.services.runs.tell_wait(request)
            except Exception:
                logger.exception("cannot check the leases of requests; trying again")

    async def settle_abandoned(self) -> None:
        """Act on answers for which nobody waits; one that cannot be acted on holds up no other."""
        queue, runs = self.services.queue, self.services.runs

        async def settle(request: Request) -> None:
            await runs.settle(request)
            await queue.acted_on(request)

        abandoned = await queue.abandoned()
        await for_each("abandoned answer", abandoned, settle, name=lambda each: each.request_id)

    async def listen(self) -> None:
        """Hear what other gateways over the same database tell."""
        await listen(self.services.database.url, self.services.queue.heard)

    async def nudge(self) -> None:
        """Repeat the request to look at the workspace while a location stays outdated.

        The stock agent does not retry an upload that failed on its way here.
        """
        while True:
            await asyncio.sleep(NUDGE_SECONDS)
            try:
                locations = await asyncio.to_thread(self.services.locations.all)
                await self._check_workspaces([each for each in locations if each.is_outdated])
            except Exception:
                logger.exception("cannot look for outdated locations; trying again")

    async def sweep(self) -> None:
        while True:
            try:
                await self.services.queue.sweep()
                await asyncio.to_thread(self.services.keys.sweep)
                await asyncio.to_thread(self.services.agents.forget_old)
                await asyncio.to_thread(Sessions(self.services.database).sweep)
            except Exception:
                logger.exception("cannot clean up the database; trying again")
            await asyncio.sleep(SWEEP_SECONDS)

    async def close(self) -> None:
        await self._gallery.close()

    def _views(self) -> list[LocationView]:
        servers = self.services.agents.code_servers()
        seen = agents_seen(self.services.agents, self.services.presence)
        return [
            view_of(location, servers.get((location.deployment, location.name)), seen)
            for location in self.services.locations.all()
        ]

    async def _announce_deploys(self) -> None:
        locations = await asyncio.to_thread(self.services.locations.all)
        deployed = {
            (location.deployment, location.name): location.updated_at for location in locations
        }
        changed = {key for key in deployed.keys() | self._deployed.keys()
                   if deployed.get(key) != self._deployed.get(key)}  # fmt: skip
        self._deployed = deployed
        await self._check_workspaces([each for each in locations
                                      if (each.deployment, each.name) in changed])  # fmt: skip
        await self._check_removed({deployment for deployment, _ in changed - deployed.keys()})

    async def _check_removed(self, names: set[str]) -> None:
        # Not for a deployment that is gone itself: the stock agent fails on it, and finds out by
        # itself (dagster_cloud_agent.py, _upload_outdated_workspace_entries).
        for deployment in await asyncio.to_thread(self.services.deployments.all):
            if deployment.name in names:
                await self.services.queue.check_workspace(
                    deployment.name, {None}, is_branch=deployment.is_branch
                )

    async def _check_workspaces(self, locations: Sequence[Location]) -> None:
        for deployment, is_branch in {(each.deployment, each.is_branch) for each in locations}:
            queues = {each.agent_queue for each in locations if each.deployment == deployment}
            await self.services.queue.check_workspace(deployment, queues, is_branch=is_branch)

    async def _redeploy(self, view: LocationView) -> None:
        if not self.reloading:
            await asyncio.to_thread(self.services.locations.redeploy, view.deployment, view.name)


@contextlib.asynccontextmanager
async def open_gateway(
    home: Home,
    workspace_changed: Callable[[set[str]], Awaitable[None]],
    meter: Meter = SILENT,
    tracer: Tracer = UNTRACED,
) -> AsyncIterator[Gateway]:
    """Open database, instance and faces, and close them in reverse."""
    with contextlib.closing(Database(home.database_url, meter)) as database:
        instance = await asyncio.to_thread(open_instance, home)
        keep_connections(instance)
        services = build_services(home, database, instance, meter, tracer)
        gateway = Gateway(home, services, workspace_changed)
        try:
            await gateway.refresh()
            yield gateway
        finally:
            await gateway.close()
            await asyncio.to_thread(instance.dispose)


async def serve_agents(
    services: Services,
    listener: socket.socket,
    tls: ServerTls,
    limits: Limits | None = None,
) -> None:
    """Serve the agent API until cancelled."""
    # Made now: how many connections there can be is known once the limit of open files is raised.
    limits = limits or Limits(idle_seconds=AGENT_IDLE_SECONDS)
    await serve(make_app(services), listener, tls, limits)
