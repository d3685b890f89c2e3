"""News of jobs that a thread waits for, and what becomes of a thread that cannot."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from dagster_hpc.commands.watch import Watch
from dagster_hpc.jobs import JobError, JobName, JobRequest, JobStatus, Phase
from dagster_hpc.steps.news import News

QUEUED = JobStatus(JobName("solve"), Phase.QUEUED)


class Broken:
    """A launcher with one piece of news, and then an error that is none of a launcher's."""

    is_looked_after = True

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self._news = [[JobStatus(JobName("solve"), Phase.RUNNING)]]

    def changes(self, seconds: float) -> Sequence[JobStatus]:
        """Return the news, and fail when it may go on."""
        if self._news:
            return self._news.pop()
        self.goes_on.wait(60)
        raise ConnectionResetError("reset by peer")

    def directory(self, job: JobName) -> str:
        raise NotImplementedError

    def submit(self, requests: Sequence[JobRequest]) -> Sequence[JobStatus]:
        raise NotImplementedError

    def status(self, job: JobName) -> JobStatus | None:
        raise NotImplementedError

    def cancel(self, jobs: Sequence[JobName]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def test_any_error_of_a_launcher_ends_the_wait() -> None:
    """A step that nobody tells of would wait for ever."""
    launcher = Broken()
    watch = Watch(launcher, QUEUED)
    running = watch.wait(QUEUED, 60)
    assert running.phase is Phase.RUNNING
    launcher.goes_on.set()
    with pytest.raises(JobError, match=r"ConnectionResetError.*reset by peer"):
        watch.wait(running, 60)
    watch.close()


def test_any_error_of_a_launcher_is_told_to_the_run() -> None:
    """The same holds for a run and its steps."""
    launcher = Broken()
    news = News([launcher])
    assert news.wait(60)
    launcher.goes_on.set()
    with pytest.raises(JobError, match=r"ConnectionResetError.*reset by peer"):
        news.wait(60)
    news.stop()
