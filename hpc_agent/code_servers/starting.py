"""Starts code servers: from a location that needs one to an intent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from sqlite_utils import Database

from hpc_agent.code_servers.location_state import LocationState
from hpc_agent.code_servers.packs import Packs
from hpc_agent.code_servers.server_plan import new_server_key, plan_server
from hpc_agent.config import AgentConfig
from hpc_agent.errors import ConfigError, TemplateError
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.store import code_servers
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, Worker, WorkerKind
from hpc_agent.workers import intents
from hpc_agent.workers.changes import Changes

log = logging.getLogger(__name__)


class Starting:
    """Prepares servers, puts them into packs where they share jobs, and makes intents of them."""

    def __init__(
        self,
        *,
        config: AgentConfig,
        store: Store,
        preparation: JobPreparation,
        changes: Changes,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._store = store
        self._preparation = preparation
        self._changes = changes
        self._clock = clock
        self._packs = Packs(config.code_servers, store, preparation, changes, clock)

    async def start(self, state: LocationState) -> None:
        """Start a server for a location.

        Raises FilesUnavailableError when its directory cannot be written now.
        """
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
        worker = Worker(
            key=server.key,
            kind=WorkerKind.CODE_SERVER,
            placement=Placement(self._config.placement_of(location)),
            phase=Phase.INTENT,
            deployment=deployment,
            location=location,
            created_at=now,
        )
        worker, refusal = await self._prepare(server, worker)

        def write(db: Database) -> None:
            if state.server is not None and state.server.status is ServerStatus.FAILED:
                code_servers.change(db, state.server.key, status=ServerStatus.RETIRED)
            self._packs.insert(db, worker)
            code_servers.insert(db, server)
            if refusal is not None:
                self._changes.within(
                    db,
                    worker.key,
                    lambda worker, _: intents.refuse(worker, refusal, now),
                    source="agent",
                )

        await self._store.run(write)
        log.info("%s/%s: new code server %s", deployment, location, server.key)

    async def _prepare(self, server: CodeServer, worker: Worker) -> tuple[Worker, str | None]:
        """Write the directory; of a location that cannot be served, return why not."""
        try:
            plan = plan_server(
                self._config,
                key=server.key,
                deployment=server.deployment,
                location=server.location,
                deploy_data=server.deploy_data,
            )
            await self._preparation.prepare(plan)
            if worker.placement is Placement.PACKED:
                return await self._packs.board(worker, plan.settings), None
        except (ConfigError, TemplateError) as error:
            return replace(worker, pack_key=None), str(error)
        return worker, None
