"""Tasks of one run that are jobs of their own: commands that it asks for, and steps of Dagster."""

from __future__ import annotations

import json

from tests.bench.peers.measures.launches import NO_OPS, RUNS, TASKS
from tests.bench.peers.rows import Row, of_all
from tests.bench.peers.runners.runner import Place, Served

_RUN_SECONDS = 120.0
_TASK_SECONDS = 10.0


def commands(runner: Served, place: Place) -> list[Row]:
    """Let a run ask for so many commands at once; from asking for them to the end of the last."""
    count = place.extent.tasks
    config = {"count": count, "command": ["/bin/true"]}
    run_id = runner.launch("asking", {"ops": {"asks": {"config": config}}})
    runner.wait([run_id], seconds=_RUN_SECONDS + count * _TASK_SECONDS)
    told = [event.get("message") or "" for event in runner.webserver.events(run_id)]
    figures = json.loads(next(line for line in told if line.startswith("figures "))[8:])
    return [of_all(TASKS, NO_OPS, runner.name, figures["all ended (s)"], count)]


def steps(runner: Served, place: Place) -> list[Row]:
    """Let a run have so many steps in jobs; from RUN_START to its end."""
    count = place.extent.steps
    run_id = runner.launch("mapping", {"ops": {"parts": {"config": {"count": count}}}})
    (times,) = runner.wait([run_id], seconds=_RUN_SECONDS + count * _TASK_SECONDS)
    return [of_all(TASKS, RUNS, runner.name, times.finished - times.first_event, count)]
