"""Three ledgers of a run, and what is wrong when they disagree.

What was executed is written by the op itself; what Slurm accounted comes from squeue and sacct;
what Dagster shows is read through the control plane. The comparison is pure.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tests.chaos.location.chaos_location import known

SUCCESS, FAILURE, CANCELED = "SUCCESS", "FAILURE", "CANCELED"
CLOSING_SECONDS = 10.0
FINAL = frozenset({SUCCESS, FAILURE, CANCELED})


class Finding(Enum):
    """What can be wrong with a run."""

    LOST = "lost"
    DOUBLED = "doubled"
    FALSE_END = "false end"
    STUCK = "stuck"
    EVENTS = "events"
    OUTPUT = "output"
    LEFT_OVER = "left over"
    STRANGER = "stranger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One disagreement; ``run_id`` is "" when it is about no run."""

    run_id: str
    finding: Finding
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """When the op of a run has begun and ended, and in which jobs of Slurm."""

    starts: Sequence[float] = ()
    ends: Sequence[float] = ()
    jobs: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What Dagster shows of a run: events as kind and message, each captured standard output."""

    status: str
    ended_at: float | None = None
    events: Sequence[tuple[str, str]] = ()
    outputs: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What may happen to a run under a fault, beside its being executed once and successful.

    ``executions`` above 1 needs a retry policy; ``may_be_cut`` is for faults that themselves end or
    remove work, so that FAILURE is the truth about work that has not been finished. A run that was
    asked to end ``is_ended``: CANCELED is its only good end.
    """

    executions: int = 1
    may_be_cut: bool = False
    is_ended: bool = False

    @property
    def is_once(self) -> bool:
        """Whether the work is executed once and to its end."""
        return self == Expected()


def read_executed(lines: Iterable[str]) -> dict[str, Executed]:
    """Return what the ops have written down, by run."""
    found: dict[str, list[dict[str, object]]] = defaultdict(list)
    for line in lines:
        entry = json.loads(line)
        found[entry["run"]].append(entry)
    return {
        run_id: Executed(
            starts=[float(str(e["at"])) for e in entries if e["what"] == "start"],
            ends=[float(str(e["at"])) for e in entries if e["what"] == "end"],
            jobs=[str(e["job"]) for e in entries if e["what"] == "start"],
        )
        for run_id, entries in found.items()
    }


def compare(run_id: str, expected: Expected, executed: Executed, shown: Shown) -> list[Problem]:
    """Return what is wrong with one run."""
    found = [*_executions(expected, executed), *_end(expected, executed, shown)]
    if shown.status == SUCCESS and executed.ends:
        found += _traces(run_id, expected, shown)
    return [Problem(run_id=run_id, finding=finding, text=text) for finding, text in found]


def left_over(jobs: Iterable[str]) -> list[Problem]:
    """Return the jobs that Slurm still has although all runs have ended."""
    return [Problem(run_id="", finding=Finding.LEFT_OVER, text=job) for job in jobs]


def harmed(jobs: Iterable[str]) -> list[Problem]:
    """Return the jobs of others that were cancelled."""
    return [Problem(run_id="", finding=Finding.STRANGER, text=job) for job in jobs]


Found = tuple[Finding, str]


def _executions(expected: Expected, executed: Executed) -> list[Found]:
    starts, ends = len(executed.starts), len(executed.ends)
    if starts > expected.executions or ends > 1:
        jobs = ", ".join(executed.jobs)
        return [(Finding.DOUBLED, f"begun {starts} times, ended {ends} times, in jobs {jobs}")]
    return []


def _end(expected: Expected, executed: Executed, shown: Shown) -> list[Found]:
    work = f"its work was begun {len(executed.starts)} times, ended {len(executed.ends)} times"
    if shown.status not in FINAL:
        return [(Finding.STUCK, f"is {shown.status or 'unknown'}; {work}")]
    if expected.is_ended and shown.status != CANCELED:
        return [(Finding.FALSE_END, f"is {shown.status} although asked to end; {work}")]
    if shown.status == SUCCESS:
        return [] if executed.ends else [(Finding.FALSE_END, f"is SUCCESS; {work}")]
    wrong = _failure(expected, executed, shown)
    return [(wrong, f"is {shown.status}; {work}")] if wrong else []


def _failure(expected: Expected, executed: Executed, shown: Shown) -> Finding | None:
    """Return what is wrong with a run that has failed or was canceled."""
    if expected.may_be_cut and _is_just_before(executed.ends, shown.ended_at):
        return None
    if executed.ends or any(start > (shown.ended_at or start) for start in executed.starts):
        return Finding.FALSE_END
    return None if expected.may_be_cut or expected.is_ended else Finding.LOST


def _is_just_before(ends: Sequence[float], ended_at: float | None) -> bool:
    """Whether work ended so shortly before its run that the run was cut off in between.

    After the op, a run worker still has to write down its success.
    """
    return bool(ends) and 0 <= (ended_at or 0.0) - max(ends) < CLOSING_SECONDS


def _traces(run_id: str, expected: Expected, shown: Shown) -> list[Found]:
    wanted = [
        "RunStartEvent",
        "ExecutionStepStartEvent",
        *(known.log_message(run_id, number) for number in range(known.LOG_LINES)),
        "ExecutionStepSuccessEvent",
        "RunSuccessEvent",
    ]
    seen = [
        word
        for kind, message in shown.events
        for word in [message if kind == "LogMessageEvent" else kind]
        if word in wanted
    ]
    if expected.executions > 1 and seen != wanted:
        # An execution that was cut off has left its events before those of the last one.
        start = len(seen) - seen[::-1].index(wanted[1]) - 1 if wanted[1] in seen else 0
        seen, wanted = seen[start:], wanted[1:]
    found: list[Found] = []
    if seen != wanted:
        found.append((Finding.EVENTS, f"wanted {_short(wanted)}; seen {_short(seen)}"))
    # Each execution has an output of its own; one of them is whole.
    whole = known.stdout(run_id)
    if whole not in shown.outputs or len(shown.outputs) > expected.executions:
        sizes = ", ".join(str(len(output)) for output in shown.outputs) or "none"
        found.append((Finding.OUTPUT, f"stdout has {sizes} of {len(whole)} characters"))
    return found


def _short(words: Sequence[str]) -> str:
    names = {"RunStartEvent": "run", "ExecutionStepStartEvent": "step"}
    names |= {"ExecutionStepSuccessEvent": "/step", "RunSuccessEvent": "/run"}
    return " ".join(names.get(word) or word.split(" message ")[-1].split()[0] for word in words)
