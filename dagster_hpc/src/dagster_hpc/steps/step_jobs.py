"""The jobs of a run's steps: which job carries which steps, and how they stand."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dagster_hpc.jobs import (
    JobError,
    JobName,
    JobRequest,
    JobStatus,
    Launcher,
    NotAnsweredError,
    Phase,
)
from dagster_hpc.launchers.agent import AgentLauncher
from dagster_hpc.launchers.local import LocalLauncher
from dagster_hpc.steps.places import Place

_LATE_AFTER_FAILURE, _LATE_AFTER_SUCCESS = 2.0, 20.0
"""Seconds for which events of a job may still be on their way after its end."""


@dataclass
class Cargo:
    """Steps that one job carries, and what it is asked for with."""

    request: JobRequest
    place: Place
    steps: list[str]
    prefix: Sequence[str] = ()


@dataclass
class Carrier:
    """A job that was asked for. ``steps`` are those of whose end nothing is known yet.

    ``is_here``: it runs on this machine, and what it has written is with the agent when it ends, or
    where it is read.
    """

    place: Place
    steps: list[str]
    status: JobStatus
    is_here: bool
    changed: float = field(default_factory=time.monotonic)
    looks: int = 0
    lines: int = 0

    @property
    def lead(self) -> str:
        """The step that it is named after, and executes first."""
        return self.status.job.name

    @property
    def is_group(self) -> bool:
        """Whether it has more than one step left."""
        return len(self.steps) > 1

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is executed in it."""
        return self.status.phase is Phase.ENDED

    def become(self, status: JobStatus) -> JobStatus:
        """Take in how the job stands, and return how it stood."""
        before, self.status = self.status, status
        self.changed = time.monotonic()
        return before

    @property
    def is_judged(self) -> bool:
        """Whether all its events have been read: a look after its end, and some time."""
        late = _LATE_AFTER_SUCCESS if self.status.has_succeeded else _LATE_AFTER_FAILURE
        if self.is_here or self.status.state == "REFUSED":
            late = 0.0
        return self.has_ended and self.looks > 0 and time.monotonic() - self.changed >= late


@dataclass(frozen=True)
class Lost:
    """A step whose job has ended without its end. ``is_lead``: the first one of the job."""

    step: str
    status: JobStatus
    is_lead: bool


_log = logging.getLogger(__name__)

Told = Callable[[Carrier, JobStatus], None]


class StepJobs:
    """Asks launchers for the jobs of steps, and keeps the books on them.

    ``tell`` is called with a job and how it stood before, when that has changed.
    """

    def __init__(self, launcher: Launcher, local: LocalLauncher, tell: Told) -> None:
        self._launcher = launcher
        self._local = local
        self._tell = tell
        self._carriers: dict[JobName, Carrier] = {}
        self._unanswered: list[JobRequest] = []

    @property
    def going(self) -> int:
        """How many jobs of their own have not ended."""
        return sum(
            each.place is Place.JOB and not each.has_ended for each in self._carriers.values()
        )

    @property
    def has_unexplained(self) -> bool:
        """Whether a job has ended, and steps of it have not."""
        return any(each.has_ended and each.steps for each in self._carriers.values())

    def carries(self, step: str) -> bool:
        """Whether a job has a step that has not come to its end."""
        return any(step in each.steps for each in self._carriers.values())

    def start(self, cargoes: Sequence[Cargo]) -> None:
        """Ask for jobs, all those of one launcher in one call."""
        for each in cargoes:
            self.enter(each.place, each.steps, JobStatus(each.request.job, Phase.WAITING))
        self._unanswered += [each.request for each in cargoes if each.place is Place.JOB]
        self.ask()
        beside = [(each.request, each.prefix) for each in cargoes if each.place is not Place.JOB]
        if beside:
            self.note(self._local.start(beside))

    def ask(self) -> None:
        """Ask for the jobs of which nothing has been heard: those wait while nobody answers."""
        jobs = self._unanswered
        if not jobs:
            return
        try:
            statuses = self._launcher.submit(jobs)
        except NotAnsweredError as error:
            _log.warning("jobs of %d steps are asked for again: %s", len(jobs), error)
            return
        except JobError as error:
            statuses = [refused(request.job, str(error)) for request in jobs]
        self._unanswered = []
        self.note(statuses)

    def enter(self, place: Place, steps: list[str], status: JobStatus) -> None:
        """Enter a job into the books."""
        is_here = place is not Place.JOB or self._launcher is self._local
        self._carriers[status.job] = Carrier(place, list(steps), status, is_here)

    def note(self, statuses: Iterable[JobStatus]) -> None:
        """Take in how jobs stand; of others than those of steps, nothing."""
        for status in statuses:
            carrier = self._carriers.get(status.job)
            if carrier is None or carrier.has_ended:
                continue
            self._tell(carrier, carrier.become(status))

    def finish(self, step: str) -> None:
        """Note that an attempt of a step is over."""
        for carrier in self._carriers.values():
            if step in carrier.steps:
                carrier.steps.remove(step)

    def looked(self) -> Iterator[Lost]:
        """Note that all events have been read, and yield the steps that were left without an end.

        ``finish`` takes them from the books.
        """
        are_told = self._are_told()
        for job, carrier in list(self._carriers.items()):
            if carrier.has_ended and not carrier.steps:
                del self._carriers[job]
            elif carrier.is_judged:
                for step in list(carrier.steps):
                    yield Lost(step, carrier.status, is_lead=step == carrier.lead)
            elif carrier.has_ended and (are_told or not carrier.is_here):
                carrier.looks += 1

    def _are_told(self) -> bool:
        """Whether the events of what has ended here can be read.

        Of jobs elsewhere the agent tells the end after their events; here it has to be asked.
        """
        ended = (each for each in self._carriers.values() if each.has_ended and each.steps)
        if any(each.is_here for each in ended) and isinstance(self._launcher, AgentLauncher):
            return self._launcher.has_all_events()
        return True

    def cancel(self) -> None:
        """End all that have not ended. Raises JobError."""
        for launcher, is_here in ((self._launcher, False), (self._local, True)):
            jobs = [
                job
                for job, each in self._carriers.items()
                if not each.has_ended and (each.place is not Place.JOB) is is_here
            ]
            if jobs:
                launcher.cancel(jobs)


def refused(job: JobName, message: str) -> JobStatus:
    """Return how a job stands that could not be asked for."""
    return JobStatus(job, Phase.ENDED, state="REFUSED", message=message)
