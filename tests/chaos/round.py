"""One round: a burst of runs, one fault in its middle, and what the ledgers say afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from hpc_agent.errors import HpcAgentError
from tests.chaos.bed import Bed
from tests.chaos.fault import Fault
from tests.chaos.ledger import (
    FINAL,
    Executed,
    Expected,
    Finding,
    Problem,
    Shown,
    compare,
    harmed,
    left_over,
)
from tests.chaos.slurm import until

SETTLE_SECONDS = 30.0
_BEGIN_SECONDS = 60.0
_STRIKE_SECONDS = 60.0
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one round.

    ``recoveries`` are seconds from the fault's end to each run's end, ``idle_jobs`` the jobs that
    Slurm accounted and that executed nothing: duplicates, or what was cancelled before it began.
    """

    fault: Fault
    run_ids: Sequence[str]
    struck: bool
    problems: Sequence[Problem]
    recoveries: Sequence[float]
    idle_jobs: int = 0
    events: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


class Round:
    """Plays one fault once."""

    def __init__(self, bed: Bed, fault: Fault, *, runs: int, random: Random) -> None:
        self._bed = bed
        self._fault = fault
        self._runs = runs
        self._random = random
        self._statuses: dict[str, tuple[str, float | None]] = {}
        self._expected: dict[str, Expected] = {}

    def play(self) -> Outcome:
        """Launch, inject, wait and compare; afterwards the bed is as it was."""
        bed, fault, began = self._bed, self._fault, time.time()
        early = self._runs // 2 if fault.running and fault.arriving else self._runs * fault.running
        run_ids = self._launch_early(early)
        with bed.control_plane.holding_back():
            run_ids += [self._launch(0.1, 3.0) for _ in range(self._runs - early)]
            injecting = fault.inject(bed, self._random)
            has_struck = injecting.__enter__()
        try:
            if fault.ends_runs:
                self._end(run_ids[:early])
            struck = until(has_struck, _STRIKE_SECONDS)
            if struck:
                time.sleep(fault.hold_seconds)
        finally:
            injecting.__exit__(None, None, None)
        ended = time.time()
        self._wait_final(run_ids)
        problems, shown = self._settled(run_ids)
        idle_jobs = bed.idle_jobs(run_ids, began, time.time())
        try:
            bed.clear([run for run in run_ids if self._statuses[run][0] not in FINAL])
        except HpcAgentError as error:
            text = f"afterwards: {error}"
            problems.append(Problem(run_id="", finding=Finding.STUCK, text=text))
        return Outcome(
            fault=fault,
            run_ids=run_ids,
            struck=struck,
            problems=problems,
            recoveries=[max(0.0, (at or ended) - ended) for _, at in self._statuses.values()],
            idle_jobs=idle_jobs,
            events={run_id: seen.events for run_id, seen in shown.items()},
        )

    def _launch_early(self, count: int) -> list[str]:
        if not count:
            return []
        bed = self._bed
        with bed.control_plane.holding_back():
            run_ids = [self._launch(*_length(self._fault)) for _ in range(count)]
        begun = until(lambda: any(run_id in bed.executed() for run_id in run_ids), _BEGIN_SECONDS)
        if not begun:
            raise HpcAgentError(f"no run begins before any fault; see {bed.logs}")
        return run_ids

    def _launch(self, least: float, most: float) -> str:
        fault, random = self._fault, self._random
        trick = fault.tricks[len(self._expected) % len(fault.tricks)] if fault.tricks else ""
        run_id = self._bed.launch(
            random.uniform(least, most), fault.tags, trick, in_steps=fault.in_steps
        )
        self._expected[run_id] = fault.expected
        return run_id

    def _end(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self._bed.control_plane.webserver.terminate(run_id)
            self._expected[run_id] = Expected(is_ended=True)

    def _wait_final(self, run_ids: Sequence[str]) -> None:
        def all_final() -> bool:
            time.sleep(_LOOK_SECONDS)
            self._look(run_ids)
            return all(status in FINAL for status, _ in self._statuses.values())

        until(all_final, min(self._fault.patience_seconds, self._bed.patience_seconds))

    def _look(self, run_ids: Sequence[str]) -> None:
        try:
            found = self._bed.control_plane.runs(run_ids)
        except HpcAgentError:
            found = {}
        self._statuses = {
            run_id: found.get(run_id) or self._statuses.get(run_id) or ("", None)
            for run_id in run_ids
        }

    def _settled(self, run_ids: Sequence[str]) -> tuple[list[Problem], dict[str, Shown]]:
        """Compare until nothing is wrong, or until what comes late must have come."""
        deadline = time.monotonic() + SETTLE_SECONDS
        shown: dict[str, Shown] = {}
        while True:
            self._look(run_ids)
            executed = self._bed.executed()
            problems: list[Problem] = []
            for run_id in run_ids:
                shown[run_id] = self._show(run_id)
                done = executed.get(run_id, Executed())
                problems += compare(run_id, self._expected[run_id], done, shown[run_id])
            problems += left_over(self._bed.jobs_left())
            problems += harmed(self._bed.harmed())
            if not problems or time.monotonic() > deadline:
                return problems, shown
            time.sleep(1)

    def _show(self, run_id: str) -> Shown:
        status, ended_at = self._statuses[run_id]
        webserver = self._bed.control_plane.webserver
        try:
            events = [(e["__typename"], e.get("message", "")) for e in webserver.events(run_id)]
            logs = webserver.compute_logs(run_id) if status == "SUCCESS" else {}
        except HpcAgentError:
            return Shown(status=status, ended_at=ended_at)
        outputs = [log["stdout"] for log in logs.values()]
        return Shown(status=status, ended_at=ended_at, events=events, outputs=outputs)


def _length(fault: Fault) -> tuple[float, float]:
    """Return for how long the runs work that are executing when a fault strikes."""
    if fault.ends_runs:
        return 60.0, 90.0
    if fault.outlasted:
        return fault.hold_seconds + 3, fault.hold_seconds + 8
    return 2.0, 6.0


def late_findings(bed: Bed, outcome: Outcome) -> list[Problem]:
    """Return what has gone wrong with a round's runs after the round."""
    executed = bed.executed()
    known = {(problem.run_id, problem.finding) for problem in outcome.problems}
    problems = [
        problem
        for run_id in outcome.run_ids
        for problem in compare(
            run_id,
            outcome.fault.expected,
            executed.get(run_id, Executed()),
            Shown(status="SUCCESS"),
        )
        if problem.finding is Finding.DOUBLED
    ]
    return [found for found in problems if (found.run_id, found.finding) not in known]
