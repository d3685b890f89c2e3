"""How the run workers stand, as texts that are kept from one heartbeat to the next.

To describe ten thousand workers and to write that as JSON takes longer than all else that an idle
agent does. So a worker is described anew when its history has grown, and all of them rarely: when
a job is expected to start may change by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hpc_agent.runs.worker_statuses import status_text
from hpc_agent.store import tracking, workers
from hpc_agent.store.database import Store
from hpc_agent.store.phases import LIVE
from hpc_agent.store.workers import Worker, WorkerKind

_SAY_AGAIN_SECONDS = 900.0

Texts = dict[str, dict[str, str]]


class Standings:
    """The run workers that live, and those that were lost less than a while ago.

    ``spooled`` says whether events of a run wait for the control plane: what the worker managed to
    send may say that its run ended well.
    """

    def __init__(
        self, store: Store, spooled: Callable[[str], bool], *, tell_lost_seconds: float
    ) -> None:
        self._store = store
        self._spooled = spooled
        self._tell_lost_seconds = tell_lost_seconds
        self._change = (0, 0)
        self._until = 0.0
        self._texts: Texts = {}

    async def look(self, now: float, *, failed_alone: bool = False) -> Mapping[str, list[str]]:
        """Return their statuses, as JSON, by deployment: of all, or of those that were lost."""
        if failed_alone:
            self._until, self._texts = 0.0, {}
        else:
            await self._look_at_living(now)
        standings = {deployment: list(texts.values()) for deployment, texts in self._texts.items()}
        since = now - self._tell_lost_seconds
        for worker in await self._store.run(lambda db: workers.lost_since(db, since)):
            if not self._spooled(str(worker.run_id)):
                standings.setdefault(worker.deployment, []).append(status_text(worker))
        return standings

    async def _look_at_living(self, now: float) -> None:
        before, self._change = self._change, await self._store.run(tracking.last_change)
        if now >= self._until:
            self._until = now + _SAY_AGAIN_SECONDS
            self._texts = await self._all()
        elif before != self._change:
            await self._renew(before)

    async def _all(self) -> Texts:
        texts: Texts = {}
        numbers = await self._store.run(lambda db: workers.rows_in_phase(db, *LIVE))
        async for some in self._store.in_parts(numbers, workers.with_rows):
            _describe(texts, some)
        return texts

    async def _renew(self, before: tuple[int, int]) -> None:
        changed = await self._store.run(lambda db: tracking.changed_since(db, before))
        for texts in self._texts.values():
            for key in texts.keys() & changed:
                del texts[key]
        async for some in self._store.in_parts(sorted(changed), workers.with_keys):
            _describe(self._texts, some)
        self._texts = {deployment: texts for deployment, texts in self._texts.items() if texts}


def _describe(texts: Texts, some: Iterable[Worker]) -> None:
    for worker in some:
        if worker.kind is WorkerKind.RUN_WORKER and worker.phase in LIVE:
            texts.setdefault(worker.deployment, {})[worker.key] = status_text(worker)
