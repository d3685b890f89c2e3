"""Calls: whoever asks a code location gets the client of its server, started first where needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from hpc_agent.code_servers.channels import Channels
from hpc_agent.code_servers.demand import Demand, Place
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.life import ServerLife
from hpc_agent.errors import (
    CodeServerDiedError,
    CodeServerError,
    CodeServerTimeoutError,
    CodeServerUnavailableError,
)
from hpc_agent.grpc.client import CodeServerClient
from hpc_agent.jobs.wording import describe
from hpc_agent.store.code_servers import CodeServer, ServerStatus

_LOOK_SECONDS = 5.0
# The node program reports the end of its child within moments.
_END_IS_KNOWN_SECONDS = 20.0


class Calls:
    """Lends clients. ``on_demand`` wakes whoever starts servers."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        life: ServerLife,
        channels: Channels,
        demand: Demand,
        on_demand: Callable[[], None],
    ) -> None:
        self._fleet = fleet
        self._life = life
        self._channels = channels
        self._demand = demand
        self._on_demand = on_demand

    @asynccontextmanager
    async def use(
        self, place: Place, *, is_branch: bool, wait_seconds: float
    ) -> AsyncIterator[CodeServerClient]:
        """Lend the client of a location's server, waiting for a server that is on its way.

        Raises CodeServerError when the location cannot be served, CodeServerUnavailableError when
        its server is not up in time; both say how the server stands. CodeServerDiedError when the
        server ended by itself before it answered: the next one may die of the same call.
        """
        with self._demand.hold(place, is_branch=is_branch):
            server = await self._serving(place, wait_seconds, is_branch=is_branch)
            with self._channels.lend(server.key) as client:
                try:
                    yield client
                except CodeServerTimeoutError:
                    raise
                except CodeServerUnavailableError as error:
                    await self._explain(server, client, error)

    async def _explain(
        self, server: CodeServer, client: CodeServerClient, error: CodeServerUnavailableError
    ) -> NoReturn:
        """Find out what became of a server whose answer is lost."""
        end = await self._life.end_of(server.key, client, wait_seconds=_END_IS_KNOWN_SECONDS)
        if end is None:
            raise error
        raise CodeServerDiedError(
            f"The code server of {server.location} died before it had answered: {end}"
        ) from error

    async def _serving(self, place: Place, wait_seconds: float, *, is_branch: bool) -> CodeServer:
        deadline = asyncio.get_running_loop().time() + wait_seconds
        servers = await self._fleet.servers_of(place)
        if not servers and self._demand.has_ttl(is_branch=is_branch):
            self._on_demand()
        while True:
            server = await self._usable(place)
            if server is not None:
                return server
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise CodeServerUnavailableError(await self._why_not(place))
            await self._life.changed(min(left, _LOOK_SECONDS))

    async def _usable(self, place: Place) -> CodeServer | None:
        servers = await self._fleet.servers_of(place)
        serving = [server for server in servers if server.status is ServerStatus.SERVING]
        if serving:
            return serving[-1]
        if servers and servers[-1].status is ServerStatus.FAILED:
            raise CodeServerError(await self._why_not(place))
        if not servers and self._fleet.is_unknown(place):
            raise CodeServerError(f"this agent serves no code location {place[0]}/{place[1]}")
        return None

    async def _why_not(self, place: Place) -> str:
        for state in await self._fleet.states():
            if state.place == place and state.worker is not None:
                return f"The code server of {place[1]} is not up: {describe(state.worker)}"
        return f"There is no code server of {place[1]} yet"
