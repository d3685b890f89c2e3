"""One code server's way from its job's start to serving, as a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hpc_agent.code_servers.channels import Channels, Tunnels
from hpc_agent.code_servers.demand import Place
from hpc_agent.code_servers.life import ServerLife
from hpc_agent.code_servers.location_state import place_of
from hpc_agent.code_servers.uploads import Uploads
from hpc_agent.config import CodeServers
from hpc_agent.dagster_plus.serdes import dumps, error_info
from hpc_agent.errors import (
    CodeLocationLoadError,
    CodeServerError,
    CodeServerUnavailableError,
    ControlPlaneError,
)
from hpc_agent.jobs.wording import describe
from hpc_agent.store import code_servers, workers
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 2.0
_LONGEST_RETRY_SECONDS = 30.0


class BringUp:
    """Waits for a server, uploads its definitions, and tells how it went."""

    def __init__(
        self,
        *,
        settings: CodeServers,
        store: Store,
        uploads: Uploads,
        life: ServerLife,
        channels: Channels,
        tunnels: Tunnels,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._uploads = uploads
        self._life = life
        self._channels = channels
        self._tunnels = tunnels
        self._clock = clock
        self._began = clock()

    async def run(self, server: CodeServer) -> None:
        """Bring a server up. Ends when it serves, has failed, or is not wanted any more."""
        retry = _RETRY_SECONDS
        # While no agent was there, no server could answer it.
        heard_at = self._began
        has_sent = False
        while await self._life.is_still(server, ServerStatus.STARTING):
            if not self._tunnels.connected(server.key):
                if await self._is_too_late(server, heard_at):
                    break
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            began = self._clock()
            try:
                is_sent = await self._upload(server)
            except CodeLocationLoadError as error:
                if await self._life.mark_failed(server, error.serialized_error, restart=False):
                    await self.tell_error(server, error.serialized_error)
            except (ControlPlaneError, CodeServerError) as error:
                log.warning("%s/%s: %s (trying again)", server.deployment, server.location, error)
                if isinstance(error, ControlPlaneError):
                    has_sent = True  # maybe
                    heard_at = self._clock()  # its definitions were read: it has answered
                    await self._life.note_refusal(server, str(error))
                elif await self._is_too_late(server, heard_at):
                    break
                await asyncio.sleep(retry)
                retry = min(retry * 2, _LONGEST_RETRY_SECONDS)
            else:
                has_sent |= is_sent
                if is_sent and await self._life.mark_serving(server):
                    await self._stay_newest(server, began)
                    return
        if has_sent:
            await self._upload_newest(place_of(server))

    async def upload_again(self, server: CodeServer) -> None:
        """Send the definitions of a serving location once more: the control plane lost them."""
        is_sent = await self._upload(server)
        if await self._life.is_still(server, ServerStatus.SERVING):
            self._life.note_upload(server)
        elif is_sent:
            await self._upload_newest(place_of(server))

    async def tell_error(self, server: CodeServer, serialized_error: str) -> None:
        """Show why a location does not load; tries until the control plane has taken it.

        Ends when that is not so any more: the error would take the place of newer definitions.
        """
        retry = _RETRY_SECONDS
        has_sent = False
        while await self._life.is_still(server, ServerStatus.FAILED):
            has_sent = True
            try:
                await self._uploads.error(server, serialized_error)
            except ControlPlaneError as error:
                log.warning("%s/%s: %s (trying again)", server.deployment, server.location, error)
                await asyncio.sleep(retry)
                retry = min(retry * 2, _LONGEST_RETRY_SECONDS)
            else:
                break
        if has_sent and not await self._life.is_still(server, ServerStatus.FAILED):
            await self._upload_newest(place_of(server))

    async def _stay_newest(self, server: CodeServer, since: float) -> None:
        """Whose definitions came last, nobody knows of two that were uploaded at the same time."""
        if await self._store.run(
            lambda db: code_servers.has_begun_to_serve(db, server, since=since)
        ):
            await self._upload_newest(place_of(server))

    async def _upload_newest(self, place: Place) -> None:
        """Send what serves a location now once more: an older upload may have come after it."""
        retry = _RETRY_SECONDS
        while True:
            servers = await self._store.run(code_servers.not_retired)
            newest = [each for each in servers if place_of(each) == place][-1:]
            if not newest or newest[0].status is not ServerStatus.SERVING:
                return  # one that starts uploads its own
            try:
                await self._upload(newest[0])
            except (ControlPlaneError, CodeServerUnavailableError) as error:
                log.warning("%s: %s (trying again)", "/".join(place), error)
                await asyncio.sleep(retry)
                retry = min(retry * 2, _LONGEST_RETRY_SECONDS)
                continue
            if await self._life.is_still(newest[0], ServerStatus.SERVING):
                self._life.note_upload(newest[0])
                return

    async def _upload(self, server: CodeServer) -> bool:
        """Upload its definitions; False where it has come to its end meanwhile."""
        said = await self._uploads.definitions(
            server,
            self._channels.client(server.key),
            is_wanted=lambda: self._life.is_still(
                server, ServerStatus.STARTING, ServerStatus.SERVING
            ),
        )
        if said is None:
            return False
        log.info("%s/%s: definitions uploaded: %s", server.deployment, server.location, said)
        return True

    async def _is_too_late(self, server: CodeServer, heard_at: float) -> bool:
        worker = await self._store.run(lambda db: workers.get(db, server.key))
        problem = self._lateness(worker, heard_at)
        if problem is None:
            return False
        serialized = dumps(error_info(problem))
        if await self._life.mark_failed(server, serialized):
            await self.tell_error(server, serialized)
        return True

    def _lateness(self, worker: Worker, heard_at: float) -> str | None:
        """Two clocks: time in the queue, and time since the job runs or the last answer."""
        now = self._clock()
        queue_limit = self._settings.queue_timeout_seconds
        if worker.phase is Phase.RUNNING and worker.started_at is not None:
            limit = self._settings.startup_timeout_seconds
            if now - max(worker.started_at, heard_at) > limit:
                return f"The code server did not answer within {limit:.0f} s ({describe(worker)})"
        waited = now - (worker.submitted_at or now)
        if worker.phase is Phase.QUEUED and queue_limit is not None and waited > queue_limit:
            return f"The code server waited {queue_limit:.0f} s in the queue ({describe(worker)})"
        return None
