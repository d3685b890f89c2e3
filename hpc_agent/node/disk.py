"""Disk trouble that passes: full, read-only, stale, away. A job waits for its end for a while."""

from __future__ import annotations

import errno
import time
from typing import Callable, TypeVar

from .journal import log

_PASSING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.ESTALE,
        errno.EIO,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ESHUTDOWN,
        errno.EREMOTEIO,
        errno.ENODEV,
        errno.EAGAIN,
    }
)
RETRY_SECONDS = 1.0

_Result = TypeVar("_Result")


class DiskTrouble(Exception):  # noqa: N818
    """It did not pass in the time given, or is not of the kind that passes."""


class Interrupted(Exception):  # noqa: N818
    """A signal asked for the end meanwhile."""


def patiently(
    what: str,
    do: Callable[[], _Result],
    give_up_after: float,
    pause: Callable[[float], bool],
) -> _Result:
    """Return what ``do`` returns, again each second while the disk refuses it.

    ``pause`` waits, and says whether to give up. Raises DiskTrouble and Interrupted.
    """
    deadline = time.monotonic() + give_up_after
    told = ""
    while True:
        try:
            return do()
        except OSError as error:
            words = "%s: %s" % (what, error)
            if error.errno not in _PASSING or time.monotonic() >= deadline:
                raise DiskTrouble(words) from error
            if words != told:
                log("waiting: %s" % words)
                told = words
        if pause(RETRY_SECONDS):
            raise Interrupted(words)
