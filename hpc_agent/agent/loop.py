"""A named loop: one step after the other, with jitter, back-off and a bell that ends the wait."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hpc_agent.agent.deployments import UnknownDeploymentError
from hpc_agent.agent.troubles import Troubles
from hpc_agent.errors import HpcAgentError, LeaseHeldError
from hpc_agent.metrics.agent import LOOP_FAILURES, LOOP_SUCCESS
from hpc_agent.metrics.meter import SILENT, Meter

log = logging.getLogger(__name__)

# Whatever else goes wrong, the agent goes on: these alone end it.
FATAL = (LeaseHeldError, UnknownDeploymentError)
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 60.0
_JITTER = 0.1


class Bell:
    """Wakes a loop early; rung while nobody waits, it ends the next wait at once.

    A loop that is dear has its rest first, however often the bell rings: ``rest_seconds``.
    """

    def __init__(self, rest_seconds: float = 0.0) -> None:
        self._event = asyncio.Event()
        self._rest_seconds = rest_seconds

    def ring(self) -> None:
        """End the wait."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Wait for the bell, at most ``seconds``; others get their turn in any case."""
        await asyncio.sleep(self._rest_seconds)
        try:
            async with asyncio.timeout(max(seconds - self._rest_seconds, 0)):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()


@dataclass(slots=True)
class Backoff:
    """Doubling waits with jitter; ``reset`` after a success."""

    first: float = _FIRST_BACKOFF_SECONDS
    longest: float = _LONGEST_BACKOFF_SECONDS
    _failures: int = 0

    def next(self) -> float:
        """Return how long to wait after one more failure."""
        wait = min(self.first * 2 ** min(self._failures, 32), self.longest)
        self._failures += 1
        return jittered(wait)

    def reset(self) -> None:
        """Forget the failures."""
        self._failures = 0


async def repeat(
    name: str,
    step: Callable[[], Awaitable[float]],
    bell: Bell,
    troubles: Troubles | None = None,
    meter: Meter = SILENT,
) -> None:
    """Repeat ``step``, which returns how many seconds may pass before the next one.

    An error is logged, noted among the ``troubles`` and followed by back-off. Raises only what
    FATAL lists.
    """
    troubles = troubles or Troubles()
    backoff = Backoff()
    last_words = ""
    while True:
        try:
            wait = jittered(await step())
            meter.set(LOOP_SUCCESS, time.time(), name)
            if last_words:
                log.info("%s: works again", name)
            backoff.reset()
            last_words = ""
            troubles.works(name)
        except FATAL:
            raise
        except HpcAgentError as error:
            wait = backoff.next()
            meter.count(LOOP_FAILURES, name)
            words = str(error)
            log.log(
                logging.WARNING if words != last_words else logging.DEBUG,
                "%s: %s (trying again, at most every %.0f s)",
                name,
                words,
                _LONGEST_BACKOFF_SECONDS,
            )
            last_words = words
            troubles.note(name, words)
        except Exception as error:
            wait = backoff.next()
            meter.count(LOOP_FAILURES, name)
            troubles.note(name, f"unexpected error: {error!r}")
            log.exception("%s: unexpected error; trying again in %.1f s", name, wait)
            last_words = "unexpected error"
        await bell.wait(wait)


def jittered(seconds: float) -> float:
    """Return about ``seconds``: agents that start together do not stay in step."""
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - not for secrets
