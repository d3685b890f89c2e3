"""The bell at a home: whoever has written into its databases rings it, and is heard at once.

A named pipe, so that nobody with nothing to do need look every other second, and that no path is
too long for it. A ring says no more than that somebody was there. Commands ring the agent's, and
whoever has enqueued a run that of the control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

FILE_NAME = "bell"
UNHEARD_SECONDS = 20.0
"""Where there is no bell, or a ring was lost, whoever would have heard it looks this often."""
_RINGS_AT_ONCE = 4096


@asynccontextmanager
async def answered(home: Path, on_ring: Callable[[], None]) -> AsyncIterator[None]:
    """Call ``on_ring`` for rings that come while the block runs; many at once may be one."""
    try:
        pipe = await asyncio.to_thread(_open, home / FILE_NAME)
    except OSError as error:
        log.warning(
            "%s: no bell (%s): commands take up to %.0f s", home, error.strerror, UNHEARD_SECONDS
        )
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(pipe, _answer, pipe, on_ring)
    try:
        yield
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)


@contextmanager
def waited_for(home: Path) -> Iterator[Callable[[float], bool]]:
    """Yield what waits for a ring, at most so many seconds, and says whether there was one.

    Where there can be no bell, with a warning, it waits that long and there never was one.
    """
    try:
        pipe = _open(home / FILE_NAME)
    except OSError as error:
        log.warning("%s: no bell (%s): what rings there is not heard", home, error.strerror)
        yield _unheard
        return

    def wait(seconds: float) -> bool:
        if not select.select([pipe], [], [], max(seconds, 0.0))[0]:
            return False
        _answer(pipe, lambda: None)
        return True

    try:
        yield wait
    finally:
        os.close(pipe)


def _unheard(seconds: float) -> bool:
    time.sleep(max(seconds, 0.0))
    return False


def ring(home: Path) -> None:
    """Ring; where nobody is there to hear it, nothing happens."""
    with contextlib.suppress(OSError):
        pipe = os.open(home / FILE_NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                os.write(pipe, b"\n")
        finally:
            os.close(pipe)


def _open(path: Path) -> int:
    if not path.is_fifo():
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
    # For writing too: otherwise it is at its end, and ready for ever, once a ringer has gone.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def _answer(pipe: int, on_ring: Callable[[], None]) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(pipe, _RINGS_AT_ONCE)
    on_ring()
