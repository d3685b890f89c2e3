"""The fleet: which code servers there should be, which there are, and how they come and go.

Desired is what the control plane's workspace says, less what nobody has asked for where servers
have a time to live; actual is what the store has. A new version of a location gets a new server
beside the old one; the old one goes when the new one has answered and its definitions are uploaded.
In the same way a server whose time limit comes near hands over to a successor.
No server waits for another.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlite_utils import Database

from hpc_agent.code_servers import handover
from hpc_agent.code_servers.channels import Channels
from hpc_agent.code_servers.demand import DEMAND, STOPPED, Demand, Place
from hpc_agent.code_servers.location_state import LocationState, place_of, state_of
from hpc_agent.code_servers.packs import Packs
from hpc_agent.code_servers.restarts import Restarts
from hpc_agent.code_servers.server_plan import new_server_key, plan_server
from hpc_agent.code_servers.workspace import CodeLocation, Question, Workspace
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.agent_calls import Deployment
from hpc_agent.dagster_plus.serdes import dumps, error_info
from hpc_agent.errors import ConfigError, TemplateError
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.jobs.wording import describe
from hpc_agent.slurm.state import JobState
from hpc_agent.store import code_servers, jobs, meta
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.jobs import Job, JobKind, Phase, Placement

log = logging.getLogger(__name__)

DRAIN_SECONDS = 180.0
_SHORT_LIFE_SECONDS = 60.0
_HANGS_EARLY_SECONDS = 900.0
_NOT_ITS_FAULT = frozenset({JobState.PREEMPTED, JobState.NODE_FAIL, JobState.BOOT_FAIL})


class Fleet:
    """Starts, finds and retires code servers.

    ``on_submit`` and ``on_retire`` wake whoever submits and cancels jobs.
    """

    def __init__(
        self,
        *,
        config: AgentConfig,
        store: Store,
        preparation: JobPreparation,
        channels: Channels,
        demand: Demand,
        clock: Callable[[], float],
        on_submit: Callable[[], None],
        on_retire: Callable[[], None],
    ) -> None:
        self._config = config
        self._store = store
        self._preparation = preparation
        self._channels = channels
        self._demand = demand
        self._clock = clock
        self._on_submit = on_submit
        self._on_retire = on_retire
        self._workspace = Workspace(config, demand)
        self._desired: Mapping[Place, CodeLocation] = {}
        self._restarts = Restarts(clock)
        self._packs = Packs(config.code_servers, store, preparation, clock)
        self._remembered: dict[str, str] = {}
        self._notes: dict[Place, str] = {}
        self._changed = asyncio.Condition()

    async def recall(self) -> None:
        """Take up what was asked for before a restart."""
        text = await self._store.run(lambda db: meta.get(db, DEMAND))
        if text is not None:
            self._demand.load(text)

    async def remember(self) -> None:
        """Write down what is asked for, so that a restart does not forget it."""
        stopped = sorted(self._workspace.locations.keys() - self._desired.keys())
        values = {DEMAND: self._demand.dump(), STOPPED: json.dumps(stopped)}
        changed = {name: text for name, text in values.items() if self._is_news(name, text)}

        def write(db: Database) -> None:
            for name, text in changed.items():
                meta.put(db, name, text)

        if changed:
            await self._store.run(write)
            self._remembered |= changed

    def _is_news(self, name: str, text: str) -> bool:
        return self._remembered.get(name) != text

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
        """Take over what is desired, start and retire servers; return how things stand."""
        self._workspace.take_over(question, answer)
        servers = await self._store.run(code_servers.not_retired)
        self._desired = self._workspace.desired(
            starting={place_of(s) for s in servers if s.status is ServerStatus.STARTING}
        )
        for state in await self.states():
            if self._wants_new_server(state):
                await self._start(state)
        for server in servers:
            if place_of(server) not in self._desired:
                self._say_farewell(server)
                self._restarts.forget(server)
                await self.retire(server)
        self._demand.forget()
        await self.remember()
        await self.announce()
        return await self.states()

    async def states(self) -> list[LocationState]:
        """Return all desired code locations with their newest servers."""

        def read(db: Database) -> list[tuple[CodeServer, Job]]:
            return [(server, jobs.get(db, server.key)) for server in code_servers.not_retired(db)]

        found = await self._store.run(read)
        return [
            state_of(place, location, found, note=self._notes.get(place))
            for place, location in self._desired.items()
        ]

    async def servers_of(self, place: Place) -> list[CodeServer]:
        """Return a location's servers, oldest first."""
        servers = await self._store.run(code_servers.not_retired)
        return [server for server in servers if place_of(server) == place]

    async def mark_serving(self, server: CodeServer) -> None:
        """The server has answered and its definitions are uploaded: older ones may go."""
        now = self._clock()
        await self._store.run(
            lambda db: code_servers.change(
                db, server.key, status=ServerStatus.SERVING, ready_at=now, error=None
            )
        )
        self._notes.pop(place_of(server), None)
        self._demand.uploaded(place_of(server))
        await self._retire_others(server)
        await self.announce()

    def note_upload(self, server: CodeServer) -> None:
        """The definitions of a serving location were uploaded again."""
        self._demand.uploaded(place_of(server))

    async def mark_failed(
        self, server: CodeServer, serialized_error: str, *, restart: bool = True
    ) -> bool:
        """The server cannot serve, and its job is ended; return whether its location fails with it.

        ``restart`` False: user code itself is at fault; a new server comes with the next deploy.
        A successor that fails leaves the location to the server before it.
        """
        if await self._has_incumbent(server):
            log.warning(
                "%s/%s: the successor of its code server failed", server.deployment, server.location
            )
            self._restarts.failed(server)
            await self._end(server, ServerStatus.RETIRED, error=None)
            return False
        if restart:
            self._restarts.failed(server)
        else:
            self._restarts.never(server)
        self._demand.uploaded(place_of(server))
        await self._end(server, ServerStatus.FAILED, error=serialized_error)
        await self._retire_others(server)
        await self.announce()
        return True

    async def retire(self, server: CodeServer) -> None:
        """End a server that is not needed any more, after the calls it is working on."""
        await self._end(server, ServerStatus.RETIRED, error=None)

    async def replace(self, server: CodeServer, fault: str) -> bool:
        """Give up a serving server that is of no use any more; False when it is gone already.

        ``fault`` says in words what it does or does not do. Nobody waits for its calls: they fail.
        """
        job = await self._store.run(lambda db: jobs.get(db, server.key))
        current = await self._store.run(lambda db: code_servers.find(db, server.key))
        if current is None or current.status is not ServerStatus.SERVING:
            return False
        log.warning(
            "%s/%s: its code server %s (%s) and is replaced",
            server.deployment,
            server.location,
            fault,
            describe(job),
        )
        self._notes[place_of(server)] = f"the one before it {fault} and was replaced"
        self._count_short_life(server, _HANGS_EARLY_SECONDS)
        await self._end(server, ServerStatus.RETIRED, error=None, drain_seconds=0)
        await self._channels.drop(server.key)
        await self.announce()
        return True

    async def job_over(self, job: Job) -> None:
        """The job of a server is over; a server that was serving is replaced at once."""
        await self._channels.drop(job.key)
        server = await self._store.run(lambda db: code_servers.find(db, job.key))
        if server is None or not server.status.is_live:
            return
        log.warning(
            "%s/%s: its code server's %s", server.deployment, server.location, describe(job)
        )
        if server.status is ServerStatus.SERVING:
            if job.state not in _NOT_ITS_FAULT:
                self._count_short_life(server, _SHORT_LIFE_SECONDS)
            await self._end(server, ServerStatus.RETIRED, error=None)
        else:
            message = f"The code server's {describe(job)}"
            await self.mark_failed(server, dumps(error_info(message)))

    async def announce(self) -> None:
        """Wake the calls that wait for a server."""
        async with self._changed:
            self._changed.notify_all()

    async def changed(self, seconds: float) -> None:
        """Wait until servers have come or gone, at most so long."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait()
        except TimeoutError:
            return

    def _count_short_life(self, server: CodeServer, limit: float) -> None:
        if self._clock() - (server.ready_at or server.created_at) < limit:
            self._restarts.failed(server)

    def _wants_new_server(self, state: LocationState) -> bool:
        server = state.server
        if server is not None and server.version != state.location.version:
            return True
        if not self._restarts.due((*state.place, state.location.version)):
            return False
        if server is None or state.job is None or server.status is ServerStatus.FAILED:
            return True
        return server.status is ServerStatus.SERVING and handover.is_due(
            server,
            state.job,
            now=self._clock(),
            drain_seconds=DRAIN_SECONDS,
            handover_seconds=self._config.code_servers.handover_seconds,
        )

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

    async def _start(self, state: LocationState) -> None:
        deployment, location = state.place
        now = self._clock()
        server = CodeServer(
            key=new_server_key(),
            deployment=deployment,
            location=location,
            version=state.location.version,
            deploy_data=state.location.entry.serialized_deployment_metadata,
            status=ServerStatus.STARTING,
            error=None,
            created_at=now,
        )
        job = Job(
            key=server.key,
            kind=JobKind.CODE_SERVER,
            placement=Placement(self._config.placement_of(location)),
            phase=Phase.INTENT,
            deployment=deployment,
            location=location,
            created_at=now,
        )
        job = await self._prepare(server, job)

        def write(db: Database) -> None:
            if state.server is not None and state.server.status is ServerStatus.FAILED:
                code_servers.change(db, state.server.key, status=ServerStatus.RETIRED)
            self._packs.insert(db, job)
            code_servers.insert(db, server)

        await self._store.run(write)
        log.info("%s/%s: new code server %s", deployment, location, server.key)
        self._on_submit()

    async def _prepare(self, server: CodeServer, job: Job) -> Job:
        """Write the job's directory; a location that cannot be served has a job that is refused."""
        try:
            plan = plan_server(
                self._config,
                key=server.key,
                deployment=server.deployment,
                location=server.location,
                deploy_data=server.deploy_data,
            )
            await self._preparation.prepare(plan)
            if job.placement is Placement.PACKED:
                return await self._packs.board(job, plan.settings)
        except (ConfigError, TemplateError) as error:
            return replace(job, phase=Phase.REFUSED, message=str(error), ended_at=job.created_at)
        return job

    async def _has_incumbent(self, server: CodeServer) -> bool:
        return any(
            other.status is ServerStatus.SERVING
            and other.version == server.version
            and other.key != server.key
            for other in await self.servers_of(place_of(server))
        )

    async def _retire_others(self, server: CodeServer) -> None:
        for other in await self._store.run(code_servers.not_retired):
            is_older = other.created_at <= server.created_at
            if is_older and place_of(other) == place_of(server) and other.key != server.key:
                await self.retire(other)

    async def _end(
        self,
        server: CodeServer,
        status: ServerStatus,
        *,
        error: str | None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        now = self._clock()

        def write(db: Database) -> None:
            code_servers.change(db, server.key, status=status, error=error)
            job = jobs.get(db, server.key)
            changes: dict[str, Any] = {"terminate_at": now + drain_seconds}
            if job.phase is Phase.INTENT:
                changes["phase"] = Phase.WITHDRAWN
            jobs.change(db, server.key, now=now, source="agent", **changes)

        await self._store.run(write)
        # Only now: whoever found the server in the store before is using it by the time we go on.
        if not self._channels.in_use(server.key):
            await self._store.run(
                lambda db: jobs.change(db, server.key, now=now, source="agent", terminate_at=now)
            )
        self._on_retire()
