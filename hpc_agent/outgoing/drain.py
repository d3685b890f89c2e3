"""Draining a queue: in order within a stream, streams side by side, until all is settled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from hpc_agent.doorbell import UNHEARD_SECONDS
from hpc_agent.errors import HpcAgentError, StoreError, UnreadableMessageError
from hpc_agent.outgoing.holds import Holds
from hpc_agent.outgoing.queue import OutgoingQueue, Waiting
from hpc_agent.outgoing.verdict import Fate, Verdict, later, never, of_error

log = logging.getLogger(__name__)

Content = TypeVar("Content")

# What comes in, and `hpc-agent outgoing`, is news: this is for news that got lost.
IDLE_SECONDS = UNHEARD_SECONDS
_AFTER_ERROR_SECONDS = 2.0
_AT_ONCE = 8
# After so many messages of one stream another one has its turn.
_TURN = 100
_STREAMS_A_LOOK = 16
# A large body on a slow line: half a megabit a second is taken for granted.
_BYTES_A_SECOND = 64 << 10
# One message that is refused for good among others that go must not fill the log.
_SAY_AGAIN_SECONDS = 600.0
_WORDS_KEPT = 100
# Whoever calls again may take that much less than the time it was told (loop.py: jitter).
_JITTER_ALLOWED = 0.8


class Drain(Generic[Content]):
    """Sends what a queue holds.

    ``send`` takes a message and returns the verdict; an HpcAgentError of its own means `later`.
    ``news`` waits for at most so many seconds, less when there may be something to send.
    ``patience_seconds``: for how long a doubtful answer is not believed.
    """

    def __init__(
        self,
        name: str,
        queue: OutgoingQueue[Content],
        send: Callable[[Content], Awaitable[Verdict]],
        *,
        news: Callable[[float], Awaitable[None]],
        patience_seconds: float,
        deadline_seconds: float,
        on_set_aside: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._queue = queue
        self._send = send
        self._news = news
        self._patience = patience_seconds
        self._deadline = deadline_seconds
        self._on_set_aside = on_set_aside
        self._clock = clock
        self._holds = Holds(clock)
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._after: str | None = None
        self._look_at = 0.0
        self._store_says = {"read": "", "written": ""}
        self._said_at: dict[str, float] = {}
        self._has_warned = False
        self.is_away = False

    async def run(self) -> None:
        """Send for ever; ends only by cancellation."""
        while True:
            try:
                wait = await self.until_idle()
            except Exception:
                log.exception("%s: unexpected error", self.name)
                wait = _AFTER_ERROR_SECONDS
            await self._news(wait)

    async def until_idle(self) -> float:
        """Send all that may be sent now; return in how many seconds to look again.

        Called before that time, it takes it for news: pauses are cut short.
        """
        if self._clock() < self._look_at:
            self._holds.hurry()
        try:
            while True:
                looked_at = self._clock()
                is_read = await self._look()
                due = self._holds.next_due(looked_at)
                longest = IDLE_SECONDS if is_read else _AFTER_ERROR_SECONDS
                wait = longest if due is None else min(due, longest)
                if not self._senders:
                    self._look_at = self._clock() + wait * _JITTER_ALLOWED
                    return wait
                await self._sender_or_news(wait)
        finally:
            await self._dismiss()

    def note(self, verdict: Verdict) -> None:
        """Note what the control plane said, also to what went past the queue."""
        if verdict.fate is Fate.SENT:
            self._holds.taken()
        self.is_away = verdict.fate is Fate.LATER
        if self.is_away:
            if self._is_news(verdict.words):
                log.warning("%s: what goes out waits: %s", self.name, verdict.words)
                self._has_warned = True
        elif self._has_warned:
            log.info("%s: the control plane answers again", self.name)
            self._has_warned = False

    def _is_news(self, words: str) -> bool:
        """Whether these words were not in the log for a while."""
        now = self._clock()
        if now - self._said_at.get(words, -_SAY_AGAIN_SECONDS) < _SAY_AGAIN_SECONDS:
            return False
        self._said_at.pop(words, None)
        self._said_at[words] = now
        if len(self._said_at) > _WORDS_KEPT:
            del self._said_at[next(iter(self._said_at))]
        return True

    async def _listen(self, seconds: float) -> None:
        until = self._clock() + seconds
        await self._news(seconds)
        if self._clock() < until:
            self._holds.hurry()

    async def _look(self) -> bool:
        try:
            await self._start_senders()
        except StoreError as error:
            self._note_store("read", str(error))
            return False
        self._note_store("read", "")
        return True

    async def _sender_or_news(self, seconds: float) -> None:
        listening = asyncio.create_task(self._listen(seconds), name=f"{self.name} news")
        try:
            await asyncio.wait(
                [*self._senders.values(), listening], return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _dismiss(self) -> None:
        senders = list(self._senders.values())
        for sender in senders:
            sender.cancel()
        if senders:
            await asyncio.wait(senders)

    async def _start_senders(self) -> None:
        """Give free slots to streams whose turn has come, in a circle over all of them."""
        beginning = self._after
        wrapped = False
        while self._has_slot():
            page = await self._queue.head(self._after, _STREAMS_A_LOOK)
            for waiting in page:
                if not self._has_slot():
                    return
                self._after = waiting.stream
                if waiting.stream not in self._senders and self._holds.may_send(waiting.stream):
                    self._start(waiting)
                if wrapped and beginning is not None and waiting.stream >= beginning:
                    return
            if len(page) < _STREAMS_A_LOOK:
                self._after = None
                if wrapped or beginning is None:
                    return
                wrapped = True

    def _has_slot(self) -> bool:
        slots = 1 if self._holds.is_away else _AT_ONCE
        return len(self._senders) < slots and self._holds.may_try_any()

    def _start(self, waiting: Waiting) -> None:
        stream = waiting.stream
        task = asyncio.create_task(self._send_stream(waiting), name=f"{self.name}: {stream}")
        self._senders[stream] = task
        task.add_done_callback(lambda _task: self._senders.pop(stream, None))

    async def _send_stream(self, first: Waiting) -> None:
        """Send a stream's messages one after the other; its errors hold this stream alone."""
        waiting: Waiting | None = first
        try:
            for _ in range(_TURN):
                if waiting is None:
                    return
                waiting = await self._settle(waiting)
        except StoreError as error:
            self._note_store("written", str(error))
            self._hold(waiting or first, later(str(error)))
        except Exception as error:
            log.exception("%s: unexpected error at %s", self.name, first.stream)
            self._hold(waiting or first, later(f"unexpected error: {error!r}"))

    async def _settle(self, waiting: Waiting) -> Waiting | None:
        """Send one message and act on the verdict; return the next one if it may go now."""
        verdict = await self._verdict(waiting)
        if verdict is not None and verdict.fate in {Fate.DOUBT, Fate.LATER}:
            verdict = await self._wait(waiting, verdict)
        if verdict is None:
            return None
        try:
            following = await self._mark(waiting, verdict)
        except StoreError:
            self._holds.know(waiting, verdict)
            raise
        self._note_store("written", "")
        self._holds.works(waiting.stream)
        return following

    async def _mark(self, waiting: Waiting, verdict: Verdict) -> Waiting | None:
        if verdict.fate is Fate.SENT:
            return await self._queue.sent(waiting)
        following = await self._queue.set_aside(waiting, verdict.words)
        self._tell_set_aside(waiting, verdict.words)
        return following

    async def _verdict(self, waiting: Waiting) -> Verdict | None:
        """Return what becomes of a message, None when it is gone.

        What is known already is not asked again: a store that could not note it must not double
        the message.
        """
        if known := self._holds.known(waiting):
            return known
        try:
            content = await self._queue.load(waiting)
        except UnreadableMessageError as error:
            return never(str(error))
        if content is None:
            return None
        verdict = await self._attempt(waiting, content)
        self.note(verdict)
        return verdict

    async def _attempt(self, waiting: Waiting, content: Content) -> Verdict:
        deadline = self._deadline + waiting.size / _BYTES_A_SECOND
        try:
            async with asyncio.timeout(deadline):
                return await self._send(content)
        except TimeoutError:
            return of_error(TimeoutError(f"no answer within {deadline:.0f} s"))
        except UnreadableMessageError as error:
            return never(str(error))
        except HpcAgentError as error:
            return of_error(error)
        except Exception as error:
            log.exception("%s: unexpected error while sending %s", self.name, waiting.key)
            return Verdict(Fate.DOUBT, f"cannot be sent: {error!r}")

    async def _wait(self, waiting: Waiting, verdict: Verdict) -> Verdict | None:
        """Hold a message back; return the verdict when its time in doubt is over."""
        doubt = self._holds.hold(waiting, verdict, patience=self._patience)
        if doubt.in_doubt and doubt.seconds >= self._patience:
            return never(f"{verdict.words} (for {doubt.seconds:.0f} s)")
        if doubt.in_doubt and doubt.is_news:
            log.warning(
                "%s: %s of %s is not taken, and tried again for at most %.0f s: %s",
                self.name,
                waiting.key,
                waiting.stream,
                self._patience - doubt.seconds,
                verdict.words,
            )
        if doubt.in_doubt or doubt.is_news:
            await self._queue.doubt(waiting, doubt.seconds, verdict.words)
        return None

    def _hold(self, waiting: Waiting, verdict: Verdict) -> None:
        self._holds.hold(waiting, verdict, patience=self._patience)

    def _tell_set_aside(self, waiting: Waiting, reason: str) -> None:
        log.error(
            "%s: the control plane does not take %s of %s, which is set aside "
            "(`hpc-agent outgoing`): %s",
            self.name,
            waiting.key,
            waiting.stream,
            reason,
        )
        if self._on_set_aside is not None:
            self._on_set_aside(reason)

    def _note_store(self, how: str, words: str) -> None:
        """Log what keeps the queue from being read or written, once per reason."""
        before = self._store_says[how]
        if words and words != before:
            log.error("%s cannot be %s: %s", self.name, how, words)
        elif before and not words:
            log.info("%s can be %s again", self.name, how)
        self._store_says[how] = words
