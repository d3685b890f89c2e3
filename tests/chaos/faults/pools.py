"""Mishaps of warm pools: the same as of jobs, to runs that share one, and those of their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from random import Random

import psutil

from tests.chaos.bed import Bed
from tests.chaos.fault import Fault, HasStruck, Inject, at_once
from tests.chaos.faults.elsewhere import played_again
from tests.chaos.ledger import Expected
from tests.chaos.slurm import URGENT

GROUP = "runs share a warm pool"
_POLICY = json.dumps({"action": "resubmit", "attempts": 4})
_IN_POOL = {"dagster-hpc/execution": "pool"}
_AGAIN = {
    **_IN_POOL,
    "dagster-hpc/on-node-fail": _POLICY,
    "dagster-hpc/on-preempt": _POLICY,
    "dagster-hpc/on-timeout": _POLICY,
}
AGAIN = Expected(executions=4)


def _killed(word: str) -> Inject:
    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        def kill_all() -> bool:
            found = _first_of(word, str(bed.work))
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return bool(found)

        yield kill_all

    return inject


def _first_of(*words: str) -> list[psutil.Process]:
    """Return the processes with these in their command line whose parents do not have them.

    What is forked has the command line of its parent.
    """

    def has_it(process: psutil.Process | None) -> bool:
        try:
            line = " ".join(process.cmdline()) if process is not None else ""
        except psutil.Error:
            return False
        return all(word in line for word in words)

    return [
        process
        for process in psutil.process_iter()
        if has_it(process) and not has_it(_parent(process))
    ]


def _parent(process: psutil.Process) -> psutil.Process | None:
    try:
        return process.parent()
    except psutil.Error:
        return None


@contextlib.contextmanager
def _preempted(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    """Somebody with a better claim takes the nodes on which allocations run."""
    urgent: list[str] = []

    def preempt() -> bool:
        for job in bed.slurm.pool_jobs():
            node = bed.slurm.run("squeue", "-h", "-o", "%N", "-j", job).strip()
            if node:
                urgent.append(
                    bed.slurm.submit(
                        "sleep 15", f"--partition={URGENT}", f"--nodelist={node}", "--exclusive"
                    )
                )
        return bool(urgent)

    try:
        yield preempt
    finally:
        for job in urgent:
            bed.slurm.run("scancel", job)


@contextlib.contextmanager
def _out_of_time(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    """The time limit of allocations comes nearer: Slurm ends them in its next minute."""

    def shorten() -> bool:
        jobs = bed.slurm.pool_jobs()
        for job in jobs:
            bed.slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
        return bool(jobs)

    yield shorten


@contextlib.contextmanager
def _redeployed(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    bed.control_plane.deploy()
    yield at_once


_OWN = [
    Fault(
        name="template killed",
        group=GROUP,
        text="kill -9 of the process that runs are forked from; those that go on, go on",
        inject=_killed("--template"),
        hold_seconds=3,
        tags=_IN_POOL,
        short=True,
    ),
    Fault(
        name="supervisor killed",
        group=GROUP,
        text="kill -9 of the process that has all runs of an allocation, which ends them",
        inject=_killed("/jobs/pol-"),
        hold_seconds=5,
        tags=_AGAIN,
        expected=AGAIN,
    ),
    Fault(
        name="allocation preempted",
        group=GROUP,
        text="a job with a better claim takes the nodes of allocations",
        inject=_preempted,
        hold_seconds=10,
        tags=_AGAIN,
        expected=AGAIN,
    ),
    Fault(
        name="allocation out of time",
        group=GROUP,
        text="the time limit of allocations ends them with what runs in them",
        inject=_out_of_time,
        hold_seconds=70,
        tags=_AGAIN,
        expected=AGAIN,
        patience_seconds=300,
    ),
    Fault(
        name="code changed under load",
        group=GROUP,
        text="the code location is deployed anew while runs are executed and arrive",
        inject=_redeployed,
        hold_seconds=10,
        tags=_IN_POOL,
    ),
]

FAULTS: tuple[Fault, ...] = (*played_again("in a pool", GROUP, tags=_IN_POOL), *_OWN)
