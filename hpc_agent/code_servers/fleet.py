"""The fleet: which code servers there should be, which there are, and who may use them.

Desired is what the control plane's workspace says, actual is what the store has. A new version of
a location gets a new server beside the old one; the old one goes when the new one has answered and
its definitions are uploaded. No server waits for another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlite_utils import Database

from hpc_agent.code_servers.plan import new_server_key, plan_server
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.agent_calls import Deployment, WorkspaceEntry
from hpc_agent.dagster_plus.serdes import dumps, error_info
from hpc_agent.errors import CodeServerError, CodeServerUnavailableError, ConfigError, TemplateError
from hpc_agent.grpc.client import CodeServerClient
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.jobs.wording import describe
from hpc_agent.relay.server import Relay
from hpc_agent.slurm.state import JobState
from hpc_agent.store import code_servers, jobs
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.jobs import Job, JobKind, Phase

log = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
_RESTART_WAITS = (1.0, 5.0, 30.0, 120.0, 300.0)
_SHORT_LIFE_SECONDS = 60.0
_NOT_ITS_FAULT = frozenset({JobState.PREEMPTED, JobState.NODE_FAIL, JobState.BOOT_FAIL})

Place = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Berth:
    """One code location: what is wanted, and the newest server with its job, if any."""

    place: Place
    entry: WorkspaceEntry
    server: CodeServer | None
    job: Job | None


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
        relay: Relay,
        clock: Callable[[], float],
        on_submit: Callable[[], None],
        on_retire: Callable[[], None],
    ) -> None:
        self._config = config
        self._store = store
        self._preparation = preparation
        self._relay = relay
        self._clock = clock
        self._on_submit = on_submit
        self._on_retire = on_retire
        self._desired: dict[Place, WorkspaceEntry] = {}
        self._clients: dict[str, CodeServerClient] = {}
        self._in_use: Counter[str] = Counter()
        self._failures: Counter[tuple[Place, str]] = Counter()
        self._restart_at: dict[tuple[Place, str], float] = {}
        self._changed = asyncio.Condition()

    async def reconcile(self, deployments: Iterable[Deployment]) -> list[Berth]:
        """Take over what is desired, start and retire servers; return how things stand."""
        self._desired = {
            (deployment.deployment_name, entry.location_name): entry
            for deployment in deployments
            for entry in deployment.workspace_entries
        }
        for berth in await self.berths():
            if self._wants_new_server(berth):
                await self._start(berth)
        for server in await self._store.run(code_servers.not_retired):
            if (server.deployment, server.location) not in self._desired:
                await self.retire(server)
        await self.announce()
        return await self.berths()

    async def berths(self) -> list[Berth]:
        """Return all desired code locations with their newest servers."""

        def read(db: Database) -> dict[Place, tuple[CodeServer, Job]]:
            newest: dict[Place, tuple[CodeServer, Job]] = {}
            for server in code_servers.not_retired(db):
                newest[server.deployment, server.location] = server, jobs.get(db, server.key)
            return newest

        found = await self._store.run(read)
        return [
            Berth(
                place=place,
                entry=entry,
                server=found[place][0] if place in found else None,
                job=found[place][1] if place in found else None,
            )
            for place, entry in self._desired.items()
        ]

    @asynccontextmanager
    async def use(
        self, deployment: str, location: str, *, wait_seconds: float
    ) -> AsyncIterator[CodeServerClient]:
        """Lend the client of a location's server, waiting for a server that is on its way.

        Raises CodeServerError when the location cannot be served, CodeServerUnavailableError when
        its server is not up in time; both say how the server stands.
        """
        server = await self._serving(deployment, location, wait_seconds)
        self._in_use[server.key] += 1
        try:
            yield self.client(server.key)
        finally:
            self._in_use[server.key] -= 1

    def client(self, key: str) -> CodeServerClient:
        """Return the client of one server; its channel is opened at the first call."""
        if key not in self._clients:
            self._clients[key] = CodeServerClient(self._relay.tunnel_socket(key))
        return self._clients[key]

    async def mark_serving(self, server: CodeServer) -> None:
        """The server has answered and its definitions are uploaded: older ones may go."""
        now = self._clock()
        await self._store.run(
            lambda db: code_servers.change(
                db, server.key, status=ServerStatus.SERVING, ready_at=now, error=None
            )
        )
        await self._retire_others(server)
        await self.announce()

    async def mark_failed(
        self, server: CodeServer, serialized_error: str, *, restart: bool = True
    ) -> None:
        """The server cannot serve. Its job is ended.

        ``restart`` False: user code itself is at fault; a new server comes with the next deploy.
        """
        if restart:
            self._note_failure(server)
        else:
            self._restart_at[_edition(server)] = float("inf")
        await self._end(server, ServerStatus.FAILED, error=serialized_error)
        await self._retire_others(server)
        await self.announce()

    async def retire(self, server: CodeServer) -> None:
        """End a server that is not needed any more, after the calls it is working on."""
        await self._end(server, ServerStatus.RETIRED, error=None)

    async def job_over(self, job: Job) -> None:
        """The job of a server is over; a server that was serving is replaced at once."""
        await self._relay.forget(job.key)
        client = self._clients.pop(job.key, None)
        if client is not None:
            await client.close()
        server = await self._store.run(lambda db: code_servers.find(db, job.key))
        if server is None or not server.status.is_live:
            return
        log.warning(
            "%s/%s: its code server's %s", server.deployment, server.location, describe(job)
        )
        if server.status is ServerStatus.SERVING:
            served = self._clock() - (server.ready_at or server.created_at)
            if served < _SHORT_LIFE_SECONDS and job.state not in _NOT_ITS_FAULT:
                self._note_failure(server)
            await self._end(server, ServerStatus.RETIRED, error=None)
        else:
            message = f"The code server's {describe(job)}"
            await self.mark_failed(server, dumps(error_info(message)))

    async def announce(self) -> None:
        """Wake the calls that wait for a server."""
        async with self._changed:
            self._changed.notify_all()

    async def close(self) -> None:
        """Close all channels; the servers live on."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    def _wants_new_server(self, berth: Berth) -> bool:
        server = berth.server
        if server is not None and server.version != _version(berth.entry):
            return True
        edition = berth.place, _version(berth.entry)
        due = self._clock() >= self._restart_at.get(edition, 0.0)
        return due and (server is None or server.status is ServerStatus.FAILED)

    def _note_failure(self, server: CodeServer) -> None:
        """Delay the next start of this location a little more with each failure in a row."""
        failures = self._failures[_edition(server)]
        self._failures[_edition(server)] += 1
        wait = _RESTART_WAITS[min(failures, len(_RESTART_WAITS) - 1)]
        self._restart_at[_edition(server)] = self._clock() + wait

    async def _start(self, berth: Berth) -> None:
        deployment, location = berth.place
        now = self._clock()
        server = CodeServer(
            key=new_server_key(),
            deployment=deployment,
            location=location,
            version=_version(berth.entry),
            deploy_data=berth.entry.serialized_deployment_metadata,
            status=ServerStatus.STARTING,
            error=None,
            created_at=now,
        )
        job = Job(
            key=server.key,
            kind=JobKind.CODE_SERVER,
            phase=Phase.INTENT,
            deployment=deployment,
            location=location,
            created_at=now,
        )
        problem = await self._prepare(server)
        if problem is not None:
            job = _refused(job, problem, now)

        def write(db: Database) -> None:
            if berth.server is not None and berth.server.status is ServerStatus.FAILED:
                code_servers.change(db, berth.server.key, status=ServerStatus.RETIRED)
            jobs.insert(db, job)
            code_servers.insert(db, server)

        await self._store.run(write)
        log.info("%s/%s: new code server %s", deployment, location, server.key)
        self._on_submit()

    async def _prepare(self, server: CodeServer) -> str | None:
        """Write the job's directory; return what is wrong with the location, if anything."""
        try:
            plan = plan_server(
                self._config,
                key=server.key,
                deployment=server.deployment,
                location=server.location,
                deploy_data=server.deploy_data,
            )
            await self._preparation.prepare(plan)
        except (ConfigError, TemplateError) as error:
            return str(error)
        return None

    async def _serving(self, deployment: str, location: str, wait_seconds: float) -> CodeServer:
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while True:
            server = await self._usable(deployment, location)
            if server is not None:
                return server
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise CodeServerUnavailableError(await self._why_not(deployment, location))
            try:
                async with asyncio.timeout(min(left, 5.0)), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _usable(self, deployment: str, location: str) -> CodeServer | None:
        servers = [
            server
            for server in await self._store.run(code_servers.not_retired)
            if (server.deployment, server.location) == (deployment, location)
        ]
        serving = [server for server in servers if server.status is ServerStatus.SERVING]
        if serving:
            return serving[-1]
        if servers and servers[-1].status is ServerStatus.FAILED:
            raise CodeServerError(await self._why_not(deployment, location))
        if not servers and self._desired and (deployment, location) not in self._desired:
            raise CodeServerError(f"this agent serves no code location {deployment}/{location}")
        return None

    async def _why_not(self, deployment: str, location: str) -> str:
        for berth in await self.berths():
            if berth.place == (deployment, location) and berth.job is not None:
                return f"The code server of {location} is not up: {describe(berth.job)}"
        return f"There is no code server of {location} yet"

    async def _retire_others(self, server: CodeServer) -> None:
        for other in await self._store.run(code_servers.not_retired):
            same_place = (other.deployment, other.location) == (server.deployment, server.location)
            if same_place and other.key != server.key and other.created_at <= server.created_at:
                await self.retire(other)

    async def _end(self, server: CodeServer, status: ServerStatus, *, error: str | None) -> None:
        now = self._clock()
        drain = DRAIN_SECONDS if self._in_use[server.key] else 0.0

        def write(db: Database) -> None:
            code_servers.change(db, server.key, status=status, error=error)
            job = jobs.get(db, server.key)
            changes: dict[str, Any] = {"terminate_at": now + drain}
            if job.phase is Phase.INTENT:
                changes["phase"] = Phase.WITHDRAWN
            jobs.change(db, server.key, now=now, source="agent", **changes)

        await self._store.run(write)
        self._on_retire()


def _edition(server: CodeServer) -> tuple[Place, str]:
    return (server.deployment, server.location), server.version


def _version(entry: WorkspaceEntry) -> str:
    return repr(entry.metadata_timestamp)


def _refused(job: Job, problem: str, now: float) -> Job:
    return replace(job, phase=Phase.REFUSED, message=problem, ended_at=now)
