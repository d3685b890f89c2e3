"""Runs that ask for many jobs: what the part `steps` of the benchmark measures."""

import json
import time
from collections.abc import Iterator

import dagster as dg
from dagster_hpc.jobs import JobName, JobRequest, Phase
from dagster_hpc.launchers.launcher import launcher_of_run

from dagster_hpc import SlurmOptions, slurm_executor

SMALL = SlurmOptions(cpus_per_task=1, mem="20M", time="10").tags()


class Many(dg.Config):
    """How many jobs, and what each does."""

    count: int
    command: list[str]


@dg.op
def asks(context: dg.OpExecutionContext, config: Many) -> None:
    """Ask for jobs at once, and follow them until the last has ended."""
    launcher = launcher_of_run(context.run_id)
    began = time.time()
    names = [JobName(f"task[{number}]") for number in range(config.count)]
    launcher.submit(
        [JobRequest(name, [(name.name, SMALL)], command=config.command) for name in names]
    )
    asked = time.time()
    lags: list[float] = []
    left, calls = {name.name for name in names}, 0
    while left:
        calls += 1
        for status in launcher.changes(30):
            if status.phase is Phase.ENDED and status.job.name in left:
                left.remove(status.job.name)
                lags.append(time.time() - (status.ended_at or 0.0))
                if not status.has_succeeded:
                    raise dg.Failure(f"{status.job.name}: {status.state} {status.message}")
    lags.sort()
    figures = {
        "asked for (s)": round(asked - began, 2),
        "all ended (s)": round(time.time() - began, 2),
        "end of a job to its run, median (s)": round(lags[len(lags) // 2], 2),
        "end of a job to its run, p95 (s)": round(lags[int(len(lags) * 0.95)], 2),
        "calls of the run": calls,
    }
    context.log.info(f"figures {json.dumps(figures)}")


@dg.job(executor_def=dg.in_process_executor)
def asking() -> None:
    """Commands, without Dagster in their jobs."""
    asks()


class Parts(dg.Config):
    """How many steps."""

    count: int


@dg.op(out=dg.DynamicOut(int), tags={"dagster-hpc/step": "in_process"})
def parts(config: Parts) -> Iterator[dg.DynamicOutput[int]]:
    """Say what is to be mapped."""
    for number in range(config.count):
        yield dg.DynamicOutput(number, mapping_key=str(number))


@dg.op(tags=SMALL | SlurmOptions(mem="300M").tags())
def no_op(part: int) -> None:
    """Do nothing with a part."""


@dg.job(executor_def=slurm_executor)
def mapping() -> None:
    """Steps of Dagster, each in a job."""
    parts().map(no_op)


defs = dg.Definitions(jobs=[asking, mapping])
