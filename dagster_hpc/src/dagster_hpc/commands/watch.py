"""How the job of a command stands, watched beside whatever else its process does."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from dagster_hpc.jobs import JobError, JobName, JobStatus, Launcher

_LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class _News:
    status: JobStatus | None = None
    trouble: JobError | None = None


class Watch:
    """Asks for news of a job in a thread: one call at a time that waits, however long it takes."""

    def __init__(self, launcher: Launcher, first: JobStatus) -> None:
        self._launcher = launcher
        self._changed = threading.Condition()
        self._news = _News(first)
        self._is_closed = False
        self._thread = threading.Thread(
            target=self._ask, args=(first.job,), name=f"watch {first.job.name}", daemon=True
        )
        self._thread.start()

    def wait(self, known: JobStatus, seconds: float) -> JobStatus:
        """Return how the job stands as soon as that has changed, or after so many seconds.

        Raises JobError when nobody can be asked any more, for whatever reason.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._news.status != known, seconds)
            if self._news.trouble is not None:
                raise self._news.trouble
            return self._news.status or known

    def close(self) -> None:
        """Ask no further; a call that waits ends by itself."""
        self._is_closed = True

    def _ask(self, job: JobName) -> None:
        while not self._is_closed:
            try:
                found = [each for each in self._launcher.changes(_LONGEST_WAIT) if each.job == job]
            except JobError as error:
                self._tell(_News(trouble=error))
                return
            except Exception as error:  # noqa: BLE001  (whatever it is, the step is told)
                self._tell(_News(trouble=JobError(repr(error))))
                return
            if found:
                self._tell(_News(found[-1]))

    def _tell(self, news: _News) -> None:
        with self._changed:
            self._news = news
            self._changed.notify_all()
