"""The life of a code server once it is started: it serves, fails, is replaced, and goes.

No server waits for another. The older server of a location goes when a newer one has answered and
its definitions are uploaded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from sqlite_utils import Database

from hpc_agent.code_servers.channels import Channels
from hpc_agent.code_servers.demand import Demand, Place
from hpc_agent.code_servers.location_state import place_of
from hpc_agent.code_servers.reconciliation import DRAIN_SECONDS
from hpc_agent.code_servers.restarts import Restarts
from hpc_agent.dagster_plus.serdes import dumps, error_info
from hpc_agent.errors import CodeServerUnavailableError
from hpc_agent.grpc.client import CodeServerClient
from hpc_agent.jobs.wording import describe
from hpc_agent.slurm.state import JobState
from hpc_agent.store import code_servers, workers
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.workers import Worker
from hpc_agent.workers import intents
from hpc_agent.workers.changes import Changes

log = logging.getLogger(__name__)

_SHORT_LIFE_SECONDS = 60.0
_HANGS_EARLY_SECONDS = 900.0
_LOOK_SECONDS = 0.5
_PING_SECONDS = 2.0
_ENDED_BY_ITSELF = frozenset({JobState.FAILED, JobState.OUT_OF_MEMORY, JobState.COMPLETED})
_NOT_ITS_FAULT = frozenset(
    {JobState.PREEMPTED, JobState.NODE_FAIL, JobState.BOOT_FAIL, JobState.LAUNCH_FAILED}
)


class ServerLife:
    """Takes servers from one status to the next, and wakes whoever waits for one."""

    def __init__(
        self,
        *,
        store: Store,
        changes: Changes,
        channels: Channels,
        demand: Demand,
        restarts: Restarts,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._changes = changes
        self._channels = channels
        self._demand = demand
        self._restarts = restarts
        self._clock = clock
        self._changed = asyncio.Condition()
        # Why the newest server does not serve yet, or why the one before it was given up.
        self.notes: dict[Place, str] = {}

    async def mark_serving(self, server: CodeServer) -> bool:
        """The server has answered and its definitions are uploaded: older ones may go.

        False where it was given up or replaced meanwhile: that stays so.
        """
        now = self._clock()
        is_first = await self._store.run(
            lambda db: code_servers.change_from(
                db,
                server.key,
                ServerStatus.STARTING,
                status=ServerStatus.SERVING,
                ready_at=now,
                error=None,
            )
        )
        if not is_first:
            return False
        self.notes.pop(place_of(server), None)
        self._demand.uploaded(place_of(server))
        await self._retire_others(server)
        await self.announce()
        return True

    def keep_notes(self, places: Collection[Place]) -> None:
        """Forget what was said of code locations that are gone."""
        self.notes = {place: note for place, note in self.notes.items() if place in places}

    def note_upload(self, server: CodeServer) -> None:
        """The definitions of a serving location were uploaded again."""
        self._demand.uploaded(place_of(server))

    async def note_refusal(self, server: CodeServer, words: str) -> None:
        """The server has answered, and the control plane does not take its definitions."""
        if await self.is_still(server, ServerStatus.STARTING):
            self.notes[place_of(server)] = f"its definitions cannot be uploaded: {words}"

    async def mark_failed(
        self, server: CodeServer, serialized_error: str, *, restart: bool = True
    ) -> bool:
        """The server cannot serve, and its job is ended; return whether its location fails with it.

        ``restart`` False: user code itself is at fault; a new server comes with the next deploy.
        A successor that fails leaves the location to the server before it. One that does not start
        any more is left as it is.
        """
        if not await self.is_still(server, ServerStatus.STARTING):
            return False
        is_successor = await self._has_incumbent(server)
        if restart or is_successor:
            self._restarts.failed(server)
        else:
            self._restarts.never(server)
        if not await self._end(
            server,
            ServerStatus.RETIRED if is_successor else ServerStatus.FAILED,
            error=None if is_successor else serialized_error,
            was=ServerStatus.STARTING,
        ):
            return False
        self.notes.pop(place_of(server), None)
        if is_successor:
            log.warning(
                "%s/%s: the successor of its code server failed", server.deployment, server.location
            )
            return False
        self._demand.uploaded(place_of(server))
        await self._retire_others(server)
        await self.announce()
        return True

    async def is_still(self, server: CodeServer, *statuses: ServerStatus) -> bool:
        """Whether the status of a server is one of these."""
        current = await self._store.run(lambda db: code_servers.find(db, server.key))
        return current is not None and current.status in statuses

    async def retire(self, server: CodeServer) -> None:
        """End a server that is not needed any more, after the calls it is working on."""
        await self._end(server, ServerStatus.RETIRED, error=None)

    async def replace(self, server: CodeServer, fault: str) -> bool:
        """Give up a serving server that is of no use any more; False when it is gone already.

        ``fault`` says in words what it does or does not do. Nobody waits for its calls: they fail.
        """
        worker = await self._store.run(lambda db: workers.get(db, server.key))
        current = await self._store.run(lambda db: code_servers.find(db, server.key))
        if current is None or current.status is not ServerStatus.SERVING:
            return False
        log.warning(
            "%s/%s: its code server %s (%s) and is replaced",
            server.deployment,
            server.location,
            fault,
            describe(worker),
        )
        self.notes[place_of(server)] = f"the one before it {fault} and was replaced"
        self._count_short_life(server, _HANGS_EARLY_SECONDS)
        await self._end(server, ServerStatus.RETIRED, error=None, drain_seconds=0)
        await self._channels.drop(server.key)
        await self.announce()
        return True

    async def worker_over(self, worker: Worker) -> None:
        """The worker of a server is over; a server that was serving is replaced at once."""
        await self._channels.drop(worker.key)
        server = await self._store.run(lambda db: code_servers.find(db, worker.key))
        if server is None or not server.status.is_live:
            return
        log.warning(
            "%s/%s: its code server's %s", server.deployment, server.location, describe(worker)
        )
        if server.status is ServerStatus.STARTING:
            message = f"The code server's {describe(worker)}"
            await self.mark_failed(server, dumps(error_info(message)))
        # It may have begun to serve just now.
        if await self.is_still(server, ServerStatus.SERVING):
            if worker.state not in _NOT_ITS_FAULT:
                self._count_short_life(server, _SHORT_LIFE_SECONDS)
            await self._end(server, ServerStatus.RETIRED, error=None)

    async def end_of(
        self, key: str, client: CodeServerClient, *, wait_seconds: float
    ) -> str | None:
        """Return how a server has come to an end of its own; waits for that to be known.

        None when it lives, has been ended by whoever may, or nothing is known in that time.
        """
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while True:
            worker = await self._store.run(lambda db: workers.get(db, key))
            if worker.phase.is_final:
                return describe(worker) if worker.state in _ENDED_BY_ITSELF else None
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or await _answers(client, min(left, _PING_SECONDS)):
                return None
            await self.changed(min(left, _LOOK_SECONDS))

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

    async def _has_incumbent(self, server: CodeServer) -> bool:
        return any(
            other.status is ServerStatus.SERVING
            and other.version == server.version
            and other.key != server.key
            for other in await self._store.run(code_servers.not_retired)
            if place_of(other) == place_of(server)
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
        was: ServerStatus | None = None,
    ) -> bool:
        """End a server; False where its status is not what it must have been."""
        now = self._clock()

        def write(db: Database) -> bool:
            if was is None:
                code_servers.change(db, server.key, status=status, error=error)
            elif not code_servers.change_from(db, server.key, was, status=status, error=error):
                return False
            self._ask_to_end(db, server.key, now, at=now + drain_seconds)
            return True

        if not await self._store.run(write):
            return False
        # Only now: whoever found the server in the store before is using it by the time we go on.
        if not self._channels.in_use(server.key):
            await self._store.run(lambda db: self._ask_to_end(db, server.key, now, at=now))
        return True

    def _ask_to_end(self, db: Database, key: str, now: float, *, at: float) -> None:
        self._changes.within(
            db,
            key,
            lambda worker, _: intents.withdraw(worker, now, terminate_at=at),
            source="agent",
        )


async def _answers(client: CodeServerClient, seconds: float) -> bool:
    try:
        await client.ping(deadline_seconds=seconds)
    except CodeServerUnavailableError:
        return False
    return True
