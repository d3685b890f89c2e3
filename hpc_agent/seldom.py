"""Log lines that strangers can cause: a few a minute, and how many more there were."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_EACH_SECONDS = 60.0
_AT_ONCE = 3
_TEMPLATES = 256


class Seldom(logging.Filter):
    """Lets a message through a few times a minute; the next one says how many were left out.

    Messages are alike when their template is. Errors always go through.
    """

    def __init__(
        self,
        *,
        at_once: int = _AT_ONCE,
        each_seconds: float = _EACH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._at_once = at_once
        self._each_seconds = each_seconds
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide on a record, and add to it what was left out before."""
        if record.levelno >= logging.ERROR:
            return True
        now = self._clock()
        since, count = self._told.get(record.msg, (now, 0))
        left_out = 0
        if now - since >= self._each_seconds:
            left_out, since, count = max(0, count - self._at_once), now, 0
        if len(self._told) >= _TEMPLATES:
            self._told.clear()
        self._told[record.msg] = since, count + 1
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like it before)"
        return count < self._at_once


def seldom(name: str) -> logging.Logger:
    """Return a logger whose lines others can cause at will."""
    logger = logging.getLogger(name)
    logger.addFilter(Seldom())
    return logger
