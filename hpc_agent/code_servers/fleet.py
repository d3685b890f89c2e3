"""The fleet: which code servers there should be, which there are, and the steps in between.

Desired is what the control plane's workspace says, less what nobody has asked for where servers
have a time to live; actual is what the store has. A new version of a location gets a new server
beside the old one. In the same way a server whose time limit comes near hands over to a successor.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping

from sqlite_utils import Database

from hpc_agent.code_servers.demand import DEMAND, STOPPED, Demand, Place
from hpc_agent.code_servers.life import ServerLife
from hpc_agent.code_servers.location_state import LocationState, place_of, state_of
from hpc_agent.code_servers.reconciliation import reconcile
from hpc_agent.code_servers.restarts import Restarts
from hpc_agent.code_servers.starting import Starting
from hpc_agent.code_servers.workspace import CodeLocation, Question, Workspace
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.agent_calls import Deployment
from hpc_agent.isolation import for_each
from hpc_agent.store import code_servers, meta, workers
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.workers import Worker

log = logging.getLogger(__name__)


class Fleet:
    """Carries out what ``reconcile`` says, and knows how the code locations stand."""

    def __init__(
        self,
        *,
        config: AgentConfig,
        store: Store,
        starting: Starting,
        life: ServerLife,
        restarts: Restarts,
        demand: Demand,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._store = store
        self._starting = starting
        self._life = life
        self._restarts = restarts
        self._demand = demand
        self._clock = clock
        self._workspace = Workspace(config, demand)
        self._desired: Mapping[Place, CodeLocation] = {}
        self._remembered: dict[str, str] = {}

    async def recall(self) -> None:
        """Take up what was asked for before a restart."""
        text = await self._store.run(lambda db: meta.get(db, DEMAND))
        if text is not None:
            self._demand.load(text)

    async def remember(self) -> None:
        """Write down what is asked for, so that a restart does not forget it."""
        stopped = sorted(self._workspace.locations.keys() - self._desired.keys())
        values = {DEMAND: self._demand.dump(), STOPPED: json.dumps(stopped)}
        changed = {
            name: text for name, text in values.items() if self._remembered.get(name) != text
        }

        def write(db: Database) -> None:
            for name, text in changed.items():
                meta.put(db, name, text)

        if changed:
            await self._store.run(write)
            self._remembered |= changed

    async def question(self) -> Question:
        """Return which deployments' code locations must be known now."""
        servers = await self._store.run(code_servers.not_retired)
        checks = self._demand.checks()
        names = {place[0] for place in self._demand.wanted()} | checks
        # A server that is on its way is waited for; whether it is wanted still, its entry says.
        names |= {s.deployment for s in servers if s.status is ServerStatus.STARTING}
        configured = self._config.control_plane.deployments
        return Question(deployments=[*configured, *sorted(names - set(configured))], checks=checks)

    def deployments(self) -> list[str]:
        """Return the deployments that this agent serves at the moment."""
        return self._workspace.deployments or list(self._config.control_plane.deployments)

    def is_unknown(self, place: Place) -> bool:
        """Whether the control plane has said that it has no such code location."""
        return place[0] in self._workspace.asked and place not in self._workspace.locations

    async def reconcile(
        self, question: Question, answer: Iterable[Deployment]
    ) -> list[LocationState]:
        """Take over what is desired, start and retire servers; return how things stand.

        A location whose server cannot be started now waits for the next time.
        """
        self._workspace.take_over(question, answer)
        servers = await self._store.run(code_servers.not_retired)
        self._desired = self._workspace.desired(
            starting={place_of(s) for s in servers if s.status is ServerStatus.STARTING}
        )
        steps = reconcile(
            await self.states(),
            servers,
            desired=self._desired.keys(),
            may_start=self._restarts.due,
            now=self._clock(),
            handover_seconds=self._config.code_servers.handover_seconds,
        )
        await for_each("start", steps.start, self._starting.start, name=_place_name)
        await for_each("retire", steps.retire, self._retire, name=lambda server: server.key)
        self._demand.forget()
        locations = self._workspace.locations
        self._restarts.keep({(*place, each.version) for place, each in locations.items()})
        self._life.keep_notes(locations.keys())
        await self.remember()
        await self._life.announce()
        return await self.states()

    async def states(self) -> list[LocationState]:
        """Return all desired code locations with their newest servers."""

        def read(db: Database) -> list[tuple[CodeServer, Worker]]:
            return [
                (server, workers.get(db, server.key)) for server in code_servers.not_retired(db)
            ]

        found = await self._store.run(read)
        return [
            state_of(place, location, found, note=self._life.notes.get(place))
            for place, location in self._desired.items()
        ]

    async def servers_of(self, place: Place) -> list[CodeServer]:
        """Return a location's servers, oldest first."""
        servers = await self._store.run(code_servers.not_retired)
        return [server for server in servers if place_of(server) == place]

    async def _retire(self, server: CodeServer) -> None:
        self._say_farewell(server)
        self._restarts.forget(server)
        await self._life.retire(server)

    def _say_farewell(self, server: CodeServer) -> None:
        location = self._workspace.locations.get(place_of(server))
        if location is None:
            log.info("%s/%s: served no more", server.deployment, server.location)
            return
        log.info(
            "%s/%s: not asked for %.0f s, or more recently used ones took its place: its code "
            "server stops until the next request",
            server.deployment,
            server.location,
            self._demand.seconds(is_branch=location.is_branch),
        )


def _place_name(state: LocationState) -> str:
    return "/".join(state.place)
