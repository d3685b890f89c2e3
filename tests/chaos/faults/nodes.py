"""Faults of nodes, and of what others do to our jobs."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from random import Random

from tests.chaos.bed import Bed
from tests.chaos.fault import Fault, HasStruck, Inject, at_once
from tests.chaos.ledger import Expected
from tests.chaos.slurm import RUN_NODES, Slurm, until

GROUP = "nodes fail, and others meddle with jobs"
CUT = Expected(may_be_cut=True)
AGAIN = Expected(executions=4)
_REQUEUE = json.dumps({"action": "requeue", "attempts": 4})
_RESUBMIT = json.dumps({"action": "resubmit", "attempts": 4})


@contextlib.contextmanager
def _slurmd_killed(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    for node in RUN_NODES:
        bed.slurm.kill(f"slurmd-{node}")
    try:
        yield at_once
    finally:
        bed.slurm.up()


@contextlib.contextmanager
def _node_down(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    _set_nodes(bed.slurm, "DOWN", RUN_NODES[:1])
    try:
        yield at_once
    finally:
        _resume(bed.slurm)


@contextlib.contextmanager
def _drained(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    _set_nodes(bed.slurm, "DRAIN", RUN_NODES)
    try:
        yield at_once
    finally:
        _resume(bed.slurm)


def _to_running(*argv: str) -> Inject:
    """Give a command to all runs' jobs that are running."""

    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        for job_id in _jobs(bed.slurm, "RUNNING"):
            bed.slurm.run(*argv, job_id)
        try:
            yield at_once
        finally:
            _let_go(bed.slurm)

    return inject


@contextlib.contextmanager
def _cancelled(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    """Cancel all, running and waiting; the drained nodes let jobs wait."""
    struck = False

    def cancel_all() -> bool:
        nonlocal struck
        if not struck and _jobs(bed.slurm, "PENDING"):
            for job_id in _jobs(bed.slurm, "RUNNING", "PENDING"):
                bed.slurm.run("scancel", job_id)
            struck = True
        return struck

    _set_nodes(bed.slurm, "DRAIN", RUN_NODES)
    try:
        yield cancel_all
    finally:
        _resume(bed.slurm)


@contextlib.contextmanager
def _held(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    def hold_all() -> bool:
        waiting = _jobs(bed.slurm, "PENDING")
        for job_id in waiting:
            bed.slurm.run("scontrol", "hold", job_id)
        return bool(waiting)

    _set_nodes(bed.slurm, "DRAIN", RUN_NODES)
    try:
        yield hold_all
    finally:
        _resume(bed.slurm)
        time.sleep(5)  # held jobs stay where they are although nodes are free
        _let_go(bed.slurm)


def _set_nodes(slurm: Slurm, state: str, nodes: Sequence[str]) -> None:
    for node in nodes:
        slurm.run("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=chaos")


def _resume(slurm: Slurm) -> None:
    """Bring the nodes back, also one that is still completing what ran on it."""

    def are_up() -> bool:
        states = slurm.run("sinfo", "-hN", "-p", "runs", "-o", "%T").split()
        bad = [state for state in states if state.startswith(("down", "drain"))]
        if bad or not states:
            _set_nodes(slurm, "RESUME", RUN_NODES)
        return bool(states) and not bad

    until(are_up, 60)


def _let_go(slurm: Slurm) -> None:
    """Release what is held, and let what was requeued begin soon instead of after two minutes.

    Not at once: for a second slurmd refuses a job whose id it has just ended.
    """
    for job_id in _jobs(slurm, "PENDING", "REQUEUED", "REQUEUE_HOLD"):
        slurm.run("scontrol", "release", job_id)
        slurm.run("scontrol", "update", f"JobId={job_id}", "StartTime=now+2")


def _jobs(slurm: Slurm, *states: str) -> list[str]:
    return [job.job_id for job in slurm.queue() or [] if job.is_run and job.state in states]


def _requeued(name: str, text: str, *argv: str) -> Fault:
    return Fault(
        name=name,
        group=GROUP,
        text=text,
        inject=_to_running(*argv),
        hold_seconds=8,
        expected=AGAIN,
        tags={"dagster-hpc/on-preempt": _REQUEUE, "dagster-hpc/on-node-fail": _REQUEUE},
    )


FAULTS = [
    Fault(
        name="slurmd killed",
        group=GROUP,
        text="kill -9 of the nodes' daemons, started again 10 s later; their jobs run on",
        inject=_slurmd_killed,
        hold_seconds=10,
    ),
    Fault(
        name="node down",
        group=GROUP,
        text="a node with runs is set down, which ends them; by default such a run fails",
        inject=_node_down,
        hold_seconds=5,
        expected=CUT,
    ),
    Fault(
        name="node down, resubmit",
        group=GROUP,
        text="the same, with the policy that such runs go on in another job",
        inject=_node_down,
        hold_seconds=5,
        expected=AGAIN,
        tags={"dagster-hpc/on-node-fail": _RESUBMIT},
    ),
    Fault(
        name="nodes drained",
        group=GROUP,
        text="all nodes of runs are drained for 15 s",
        inject=_drained,
        hold_seconds=15,
    ),
    _requeued("requeue", "running jobs are requeued", "scontrol", "requeue"),
    _requeued(
        "requeue and hold",
        "running jobs are requeued and held, and released 8 s later",
        "scontrol",
        "requeuehold",
    ),
    Fault(
        name="scancel from outside",
        group=GROUP,
        text="somebody cancels all jobs of runs, running and waiting ones",
        inject=_cancelled,
        expected=CUT,
    ),
    Fault(
        name="held from outside",
        group=GROUP,
        text="waiting jobs are held, and released later",
        inject=_held,
        hold_seconds=5,
    ),
]
