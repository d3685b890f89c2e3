"""Launch to submitted, to the first event, to the end: one run at a time, and many at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.bench.peers.rows import Row, of_all, row_of
from tests.bench.peers.runners.runner import Place, Runner, RunTimes

PART = "launch"
TASKS = "tasks"
RUNS = "Dagster runs, or steps of one"
NO_OPS = "no-op commands or functions"
# As many as a browser opens connections, and fewer than any server refuses.
_CALLERS = 8
_RUN_SECONDS_EACH = 30.0
_LOOK_SECONDS = 0.2


def launches(runner: Runner, place: Place) -> list[Row]:
    """Take both measurements, after a run that warms up."""
    extent = place.extent
    runner.wait([runner.launch()])
    single = [runner.wait([runner.launch()])[0] for _ in range(extent.singles)]
    rows = _moments(runner, "one at a time", single)
    rows += at_once(runner, extent.burst)
    if extent.task_runs != extent.burst:
        rows += [row for row in at_once(runner, extent.task_runs) if row.part == TASKS]
    return rows


def at_once(runner: Runner, count: int) -> list[Row]:
    """Launch so many runs, as many at once as the runner may have, and wait for the last end."""
    began = time.time()
    run_ids = _launched(runner, count)
    times = runner.wait(run_ids, seconds=60 + count * _RUN_SECONDS_EACH)
    seconds = max(each.finished for each in times) - began
    whole = of_all(TASKS, RUNS, runner.name, seconds, count)
    return [*_moments(runner, f"{count} at once", times), whole]


def _launched(runner: Runner, count: int) -> list[str]:
    run_ids: list[str] = []
    running: set[str] = set()
    with ThreadPoolExecutor(_CALLERS) as callers:
        while True:
            room = (runner.at_most or count) - len(running)
            launched = range(min(room, count - len(run_ids)))
            more = list(callers.map(lambda _: runner.launch(), launched))
            run_ids += more
            if len(run_ids) == count:
                return run_ids
            running.update(more)
            time.sleep(_LOOK_SECONDS)
            running -= runner.ended(running)


def _moments(runner: Runner, how: str, times: Sequence[RunTimes]) -> list[Row]:
    return [
        row_of(PART, f"{how}: submitted", runner.name, "s", _since(times, "submitted")),
        row_of(PART, f"{how}: first event", runner.name, "s", _since(times, "first_event")),
        row_of(PART, f"{how}: finished", runner.name, "s", _since(times, "finished")),
    ]


def _since(times: Sequence[RunTimes], moment: str) -> list[float]:
    return [getattr(each, moment) - each.launched for each in times]
