"""News of jobs from several launchers, waited for at once without missing an interrupt."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

from dagster._utils.interrupts import check_captured_interrupt

from dagster_hpc.jobs import JobError, JobStatus, Launcher

_LONGEST_POLL = 20.0
_SLICE = 0.2
_PAUSE = 5.0


class News:
    """Follows launchers, each in a thread of its own."""

    def __init__(self, launchers: Sequence[Launcher]) -> None:
        self._queue: queue.SimpleQueue[Sequence[JobStatus] | JobError] = queue.SimpleQueue()
        self._stopped = threading.Event()
        for launcher in launchers:
            threading.Thread(target=self._follow, args=[launcher], daemon=True).start()

    def wait(self, seconds: float) -> Sequence[JobStatus] | None:
        """Return what has changed, maybe events alone (empty), None when it is nothing.

        An interrupt ends the wait. Raises JobError when a launcher is refused.
        """
        until = time.monotonic() + seconds
        while not check_captured_interrupt():
            left = until - time.monotonic()
            try:
                first = self._queue.get(timeout=max(0.0, min(left, _SLICE)))
            except queue.Empty:
                if left <= 0:
                    return None
            else:
                return self._with_the_rest(first)
        return None

    def stop(self) -> None:
        """Let the threads end with the wait that they are in."""
        self._stopped.set()

    def _with_the_rest(self, item: Sequence[JobStatus] | JobError) -> Sequence[JobStatus]:
        found: list[JobStatus] = []
        while True:
            if isinstance(item, JobError):
                raise item
            found += item
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return found

    def _follow(self, launcher: Launcher) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(launcher.changes(_LONGEST_POLL))
            except Exception as error:  # noqa: BLE001  (whatever it is, the run is told)
                self._queue.put(error if isinstance(error, JobError) else JobError(repr(error)))
                self._stopped.wait(_PAUSE)
