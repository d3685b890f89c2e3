"""Event writes on their way to the control plane: straight on, or through the spool.

Once a write of a run is spooled, its later writes queue behind it. Between concurrent requests of
one run there is no order to keep.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from hpc_agent.errors import ControlPlaneRefusedError, HpcAgentError
from hpc_agent.outgoing.drain import Drain
from hpc_agent.outgoing.verdict import Fate, Verdict, of_error, of_graphql, of_rest
from hpc_agent.relay.event_writes import EventWrite, results_of
from hpc_agent.relay.spool import Spool
from hpc_agent.relay.upstream import Upstream

log = logging.getLogger(__name__)

# The stock dagster-cloud client waits 60 s for an answer: by then its write is on disk.
_STRAIGHT_ON_SECONDS = 45.0
_DEADLINE_SECONDS = 60.0


class Delivery:
    """Delivers event writes, and drains the spool: ``run`` is its loop."""

    def __init__(self, upstream: Upstream, spool: Spool, *, patience_seconds: float) -> None:
        self._upstream = upstream
        self._spool = spool
        self._work = asyncio.Event()
        self._sending: dict[str, list[float]] = {}
        self._drain = Drain(
            "event spool",
            spool,
            self.send,
            news=self._news,
            patience_seconds=patience_seconds,
            deadline_seconds=_DEADLINE_SECONDS,
        )

    @property
    def away(self) -> bool:
        """Whether the control plane did not take the last write it was sent."""
        return self._drain.is_away

    def look(self) -> None:
        """Look into the spool now, and cut pauses short."""
        self._work.set()

    async def deliver(self, write: EventWrite) -> httpx.Response | None:
        """Deliver a write and return the answer, or None when it is on disk instead.

        Raises ControlPlaneRefusedError, or StoreError (SpoolFullError) when it is neither.
        """
        with self._noted(write.stream):
            if self._may_go_straight_on(write):
                verdict, answer = await self._try(write)
                self._drain.note(verdict)
                if verdict.fate is Fate.SENT:
                    return answer
                if verdict.fate is Fate.NEVER:
                    raise ControlPlaneRefusedError(verdict.words)
            try:
                await self._spool.put(write)
            finally:
                self._work.set()
            return None

    def is_sending(self, stream: str, *, for_seconds: float = 0.0) -> bool:
        """Whether a write of a stream has been on its way for so long, and is not in the spool."""
        latest = time.monotonic() - for_seconds
        return any(since <= latest for since in self._sending.get(stream, ()))

    @contextmanager
    def _noted(self, stream: str) -> Iterator[None]:
        since = time.monotonic()
        self._sending.setdefault(stream, []).append(since)
        try:
            yield
        finally:
            self._sending[stream].remove(since)
            if not self._sending[stream]:
                del self._sending[stream]

    async def run(self) -> None:
        """Drain the spool whenever it holds something; ends only by cancellation."""
        await self._drain.run()

    def _may_go_straight_on(self, write: EventWrite) -> bool:
        """Whether nothing is to be sent before; while others wait, the spool's loop asks for them.

        With an empty spool nobody else would find out that the control plane is back.
        """
        others_wait = self._drain.is_away and self._spool.pending > 0
        return not others_wait and not self._spool.holds(write.stream)

    async def _try(self, write: EventWrite) -> tuple[Verdict, httpx.Response | None]:
        try:
            async with asyncio.timeout(_STRAIGHT_ON_SECONDS):
                return await self._send(write)
        except (TimeoutError, HpcAgentError) as error:
            return of_error(error), None
        except Exception as error:
            log.exception("unexpected error while sending %s", write.idempotency_key)
            return Verdict(Fate.DOUBT, repr(error)), None

    async def send(self, write: EventWrite) -> Verdict:
        """Send a spooled write and return the verdict of the answer."""
        verdict, _ = await self._send(write)
        return verdict

    async def _send(self, write: EventWrite) -> tuple[Verdict, httpx.Response]:
        is_graphql = write.path == "/graphql"
        results = results_of(write) if is_graphql else []
        answer = await self._upstream.store(write)
        return of_graphql(answer, results) if is_graphql else of_rest(answer), answer

    async def _news(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._work.wait()
        except TimeoutError:
            pass
        self._work.clear()
