"""Dispatch of a run's steps: what is ready goes to its place, and what came of it comes back.

Between Dagster's loop (``executor``), which says what is ready and takes events, and the books on
jobs (``step_jobs``).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence, Set

from dagster import DagsterEvent
from dagster._core.execution.context.system import IStepContext, PlanOrchestrationContext
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.retries import RetryMode

from dagster_hpc.jobs import JobError, JobName, JobRequest, JobStatus, Launcher, Phase, Tags
from dagster_hpc.launchers.local import LocalLauncher
from dagster_hpc.options import TAG_PREFIX
from dagster_hpc.steps import groups, in_process
from dagster_hpc.steps.arguments import arguments_of, needed_by
from dagster_hpc.steps.events import StepEvents, is_end, launched
from dagster_hpc.steps.failure import fail
from dagster_hpc.steps.places import GROUP_TAG, Place, place_of, srun_words
from dagster_hpc.steps.progress import tell_change, tell_launched
from dagster_hpc.steps.step_jobs import Cargo, Carrier, StepJobs, refused

_MOST_LINES = 4
"""Of a job that waits, in the run's log: there may be a thousand of them."""

_LONGEST_HERE = 1.0


class Dispatch:
    """Dispatches the steps of one run.

    ``default`` is where steps run that do not say it; ``max_jobs`` bounds the jobs that wait or
    run at the same time.
    """

    def __init__(
        self,
        run: PlanOrchestrationContext,
        *,
        launcher: Launcher,
        local: LocalLauncher,
        default: str,
        retries: RetryMode,
        max_jobs: int | None,
    ) -> None:
        self._run = run
        self._default = default
        self._retries = retries
        self._max_jobs = max_jobs
        self._launcher = launcher
        self._jobs = StepJobs(launcher, local, self._tell)
        self._events = StepEvents()
        self._ready: list[str] = []
        self._launched: dict[str, JobName] = {}
        self._has_taken_up = False
        self._active: ActiveExecution | None = None

    @property
    def active(self) -> ActiveExecution:
        """Dagster's state machine of this run."""
        assert self._active is not None  # noqa: S101  (there is one before a step is ready)
        return self._active

    @active.setter
    def active(self, active: ActiveExecution) -> None:
        self._active = active

    @property
    def is_waiting_for_events(self) -> bool:
        """Whether a job has ended, and the ends of its steps have not been seen."""
        return self._jobs.has_unexplained

    def launch(self, step: str) -> None:
        """Take a step that is ready; it goes with the next departure."""
        self._events.launch(step)
        self._ready.append(step)

    def find_again(self, step: str) -> bool:
        """Take up a step that an earlier run worker has launched; False if it has no job."""
        if not self._has_taken_up:
            self._take_up()
            self._has_taken_up = True
        self._events.launch(step)
        return self._jobs.carries(step)

    def depart(self) -> bool:
        """Send off what is ready; whether a step was executed here meanwhile."""
        self._jobs.ask()
        loads = self._within_bounds(self._loads())
        if not loads:
            return False
        known = self.active.get_known_state()
        others = [load for load in loads if self._place(load) is not Place.IN_PROCESS]
        # Of a group those that are ready: the others are executed when it is their turn.
        here = [
            step
            for load in loads
            if self._place(load) is Place.IN_PROCESS
            for step in load
            if step in self._events.in_flight
        ]
        self._jobs.start([each for load in others if (each := self._cargo(load, known))])
        return self._execute(here, known)

    def replay(self, events: Iterable[DagsterEvent]) -> list[DagsterEvent]:
        """Return what an earlier run worker has seen, as the state machine takes it."""
        found = list(events)
        self._launched = launched(found)
        return self._events.replay(found)

    def note(self, statuses: Iterable[JobStatus]) -> None:
        """Take in how jobs stand."""
        self._jobs.note(statuses)

    def due(self) -> list[DagsterEvent]:
        """Return events that have waited until their step was launched."""
        return self._passed_on(self._events.due())

    def sort(self, events: Iterable[DagsterEvent]) -> list[DagsterEvent]:
        """Return the events that the state machine may have now."""
        return self._passed_on(self._events.sort(events, self._jobs.carries))

    def settle(self) -> bool:
        """Decide on steps whose job has ended without them, after all events have been read."""
        has_failed = False
        for lost in self._jobs.looked():
            is_in_flight = lost.step in self._events.in_flight
            has_begun = self._events.has_begun(lost.step)
            if has_begun and not is_in_flight:
                continue  # the step before it has just ended
            self._jobs.finish(lost.step)
            if not is_in_flight or self._events.is_over(lost.step):
                continue
            if lost.status.has_succeeded and not has_begun and not lost.is_lead:
                self._ready.append(lost.step)
            else:
                attempts = self.active.retry_state.get_attempt_count(lost.step)
                fail(self._context(lost.step), lost.status, attempts=attempts)
                has_failed = True
        return has_failed

    def cancel(self) -> None:
        """End all jobs. Raises JobError."""
        self._jobs.cancel()

    def _take_up(self) -> None:
        """Enter the jobs of an earlier run worker, each with the steps that it has left."""
        steps_of: dict[JobName, list[str]] = {}
        for step, job in self._launched.items():
            steps_of.setdefault(job, []).append(step)
        if not steps_of:
            return
        # An agent that is away has no changes, and is waited for here: what is not found is begun.
        self._launcher.status(next(iter(steps_of)))
        for status in self._launcher.changes(0):
            if steps := steps_of.get(status.job):
                self._jobs.enter(Place.JOB, steps, status)

    def _loads(self) -> list[Sequence[str]]:
        """Return the steps of each job that could go now; those of a group may have to wait."""
        ready, self._ready = dict.fromkeys(self._ready), []
        loads: list[Sequence[str]] = []
        of_groups: dict[str, list[str]] = {}
        for step in ready:
            if self._jobs.carries(step) or step not in self._events.in_flight:
                continue
            if group := self._tags(step).get(GROUP_TAG):
                of_groups.setdefault(group, []).append(step)
            else:
                loads.append([step])
        for group, steps in of_groups.items():
            found = groups.loads(steps, self._pending(group), self._resolved())
            loads += found
            if not found:
                self._ready += steps
        if of_groups and not loads and self._is_stuck():
            group, steps = next(iter(of_groups.items()))
            load = groups.part(steps, self._pending(group), self._resolved())
            self._ready = [step for step in self._ready if step not in load]
            loads.append(load)
        return loads

    def _is_stuck(self) -> bool:
        """Whether groups wait for what cannot start: they fill a limit, or wait for each other."""
        active = self.active
        if not self._events.in_flight <= set(self._ready) or active._waiting_to_retry:
            return False
        most = active._max_concurrent
        is_full = most is not None and len(active._in_flight) >= most
        return is_full or bool(active._tag_concurrency_limits) or not active._executable

    def _within_bounds(self, loads: list[Sequence[str]]) -> list[Sequence[str]]:
        if self._max_jobs is None:
            return loads
        room = self._max_jobs - self._jobs.going
        found = []
        for load in loads:
            if self._place(load) is Place.JOB:
                if room <= 0:
                    self._ready += [step for step in load if step in self._events.in_flight]
                    continue
                room -= 1
            found.append(load)
        return found

    def _cargo(self, steps: Sequence[str], known: KnownExecutionState) -> Cargo | None:
        """Return the request for steps; None for what cannot be asked for."""
        lead = self._name(steps[0])
        tags = self._tags(steps[0])
        place = self._place(steps)
        try:
            arguments = arguments_of(
                [self.active.get_step_by_key(step) for step in steps],
                plan_context=self._run,
                retry_mode=self._retries,
                known_state=known,
            )
        except JobError as error:
            self._jobs.enter(place, list(steps), refused(lead, str(error)))
            return None
        tell_launched(self._context(steps[0]), place, list(steps), lead.attempt)
        request = JobRequest(
            job=lead,
            steps=[(step, _ours(self._tags(step))) for step in steps],
            arguments=arguments,
        )
        return Cargo(request, place, list(steps), srun_words(tags) if place is Place.SRUN else ())

    def _place(self, steps: Sequence[str]) -> Place:
        """A group of steps is a job, unless one of them says otherwise."""
        places = [place_of(self._tags(step), self._default) for step in steps]
        return next((each for each in places if each is not Place.JOB), Place.JOB)

    def _execute(self, steps: Sequence[str], known: KnownExecutionState) -> bool:
        """Execute steps here, for a second: the others of the run want to be heard as well."""
        until = time.monotonic() + _LONGEST_HERE
        for number, key in enumerate(steps):
            if time.monotonic() > until:
                self._ready += steps[number:]
                break
            step = self.active.get_step_by_key(key)
            tell_launched(self._context(key), Place.IN_PROCESS, [key], self._name(key).attempt)
            message = in_process.execute(
                step,
                plan_context=self._run,
                retry_mode=self._retries,
                known_state=needed_by([step], known),
            )
            state = "FAILED" if message else "COMPLETED"
            status = JobStatus(
                self._name(key), Phase.ENDED, job_id="the run worker", state=state, message=message
            )
            self._jobs.enter(Place.IN_PROCESS, [key], status)
        return bool(steps)

    def _passed_on(self, events: list[DagsterEvent]) -> list[DagsterEvent]:
        for event in events:
            if event.step_key is not None and is_end(event):
                self._jobs.finish(event.step_key)
            if event.step_key is not None and event.is_step_up_for_retry:
                self._unload_after(event.step_key)
        return events

    def _unload_after(self, step: str) -> None:
        """Take what needs a step from its job, which executes neither any more."""
        pending = self.active._pending
        left_out, border = set[str](), {step}
        while border:
            left_out |= border
            border = {key for key, needed in pending.items() if needed & border} - left_out
        for each in left_out - {step}:
            self._events.forget(each)
            self._jobs.finish(each)

    def _pending(self, group: str) -> Mapping[str, Set[str]]:
        """Return the members of a group that nobody has launched, and what they need."""
        active = self.active
        waiting = {**active._pending, **{step: set[str]() for step in active._executable}}
        return {
            step: needed
            for step, needed in waiting.items()
            if self._tags(step).get(GROUP_TAG) == group and not self._jobs.carries(step)
        }

    def _resolved(self) -> Set[str]:
        active = self.active
        return active._success | active._skipped | active._failed | active._abandoned

    def _tell(self, carrier: Carrier, before: JobStatus) -> None:
        if carrier.place is Place.JOB:
            context = self._context(carrier.lead)
            carrier.lines += tell_change(
                context,
                before,
                carrier.status,
                is_group=carrier.is_group,
                may_wait=carrier.lines < _MOST_LINES,
            )

    def _context(self, step: str) -> IStepContext:
        return self._run.for_step(self.active.get_step_by_key(step))

    def _tags(self, step: str) -> Tags:
        return self.active.get_step_by_key(step).tags

    def _name(self, step: str) -> JobName:
        return JobName(step, self.active.retry_state.get_attempt_count(step))


def _ours(tags: Tags) -> Tags:
    return {name: value for name, value in tags.items() if name.startswith(TAG_PREFIX)}
