"""Event writes on their way to the control plane: straight on, or through the spool.

Once a write of a run is spooled, its later writes queue behind it. Between concurrent requests of
one run there is no order to keep.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import defaultdict
from collections.abc import Sequence

import httpx

from hpc_agent.errors import ControlPlaneRefusedError, ControlPlaneUnavailableError, StoreError
from hpc_agent.relay.event_writes import EventWrite
from hpc_agent.relay.spool import Pending, Spool
from hpc_agent.relay.upstream import Upstream

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_MAX_PAUSE = 30.0
_STREAMS_AT_ONCE = 8
# HTTP 500 and GraphQL errors may pass, or be the fault of this one write: with the back-off these
# attempts take about two minutes, then the write must not hold up those behind it any longer.
_MAX_ATTEMPTS = 10


class Delivery:
    """Delivers event writes, and drains the spool with back-off: ``run`` is its loop."""

    def __init__(self, upstream: Upstream, spool: Spool) -> None:
        self._upstream = upstream
        self._spool = spool
        self._away = False
        self._work = asyncio.Event()

    @property
    def away(self) -> bool:
        """Whether the control plane did not take the last write it was sent."""
        return self._away

    async def deliver(self, write: EventWrite) -> httpx.Response | None:
        """Deliver a write and return the answer, or None when it is on disk instead.

        Raises ControlPlaneRefusedError, or StoreError (SpoolFullError) when it is neither.
        """
        if not self._away and not self._spool.holds(write.stream):
            try:
                answer = await self._upstream.store(write)
                if answer.status_code < 500:
                    return answer
            except ControlPlaneUnavailableError as error:
                self._note_away(error)
        try:
            await self._spool.put(write)
        finally:
            self._work.set()
        return None

    async def run(self) -> None:
        """Drain the spool whenever it holds something; ends only by cancellation."""
        pause = _FIRST_PAUSE
        while True:
            if not self._spool.pending:
                self._work.clear()
                self._away = False
                await self._work.wait()
            try:
                drained = await self._round()
            except StoreError as error:
                log.error("%s", error)  # noqa: TRY400  (the message says it all)
                drained = False
            if drained:
                pause = _FIRST_PAUSE
                continue
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
            pause = min(pause * 2, _MAX_PAUSE)

    async def _round(self) -> bool:
        """Send the oldest writes; return whether all of them are settled."""
        streams: dict[str, list[Pending]] = defaultdict(list)
        for pending in await self._spool.head():
            streams[pending.stream].append(pending)
        slots = asyncio.Semaphore(_STREAMS_AT_ONCE)
        settled = await asyncio.gather(*(self._send(s, slots) for s in streams.values()))
        return all(settled)

    async def _send(self, writes: Sequence[Pending], slots: asyncio.Semaphore) -> bool:
        async with slots:
            for pending in writes:
                try:
                    if not await self._settle(pending):
                        return False
                except ControlPlaneUnavailableError as error:
                    self._note_away(error)
                    return False
        return True

    async def _settle(self, pending: Pending) -> bool:
        write = await self._spool.load(pending)
        try:
            answer = await self._upstream.store(write)
        except ControlPlaneRefusedError as error:
            await self._reject(pending, str(error))
            return True
        self._note_back()
        errors = _failure(answer)
        if errors is None:
            await self._spool.remove(pending)
            return True
        if pending.attempts + 1 >= _MAX_ATTEMPTS:
            await self._reject(pending, errors)
            return True
        await self._spool.count_attempt(pending)
        return False

    async def _reject(self, pending: Pending, reason: str) -> None:
        self._note_back()
        log.error("the control plane refuses an event write of %s: %s", pending.stream, reason)
        await self._spool.reject(pending, reason)

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            log.warning("event writes are spooled until the control plane is back: %s", error)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.info("the control plane is back: %d spooled event writes", self._spool.pending)
        self._away = False


def _failure(answer: httpx.Response) -> str | None:
    """Return what a control plane that is up says is wrong, None when it took the write."""
    if answer.status_code >= 500:
        return f"HTTP {answer.status_code}: {answer.text[:2000]}"
    if b'"errors"' not in answer.content:
        return None
    try:
        document = answer.json()
    except ValueError:
        return None
    errors = document.get("errors") if isinstance(document, dict) else None
    return json.dumps(errors)[:2000] if errors else None
