"""The job: it imports little, runs in one process and leaves three traces that can be compared."""

import json
import os
import time

import dagster as dg

from dagster_hpc import slurm_executor

from . import known
from .tricks import play


class Work(dg.Config):
    """How long to take, where to write down that it was executed, and a trick to play."""

    ledger: str
    seconds: float = 0.5
    trick: str = ""


def note(path: str, run_id: str, what: str) -> None:
    """Append one line by one write, which is atomic for as little as this (O_APPEND)."""
    entry = {
        "run": run_id,
        "what": what,
        "at": time.time(),
        "pid": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "node": os.environ.get("SLURMD_NODENAME", ""),
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (json.dumps(entry) + "\n").encode())
    finally:
        os.close(descriptor)


@dg.op
def work(context: dg.OpExecutionContext, config: Work) -> None:
    """Be executed, and write that down before and after."""
    run_id = context.run_id
    note(config.ledger, run_id, "start")
    print(known.first_half(run_id), end="", flush=True)
    for number in range(known.LOG_LINES):
        context.log.info(known.log_message(run_id, number))
        time.sleep(config.seconds / known.LOG_LINES)
    if config.trick:
        play(config.trick)
    print(known.second_half(run_id), end="", flush=True)
    note(config.ledger, run_id, "end")


@dg.job(executor_def=dg.in_process_executor)
def chaos_job() -> None:
    """Work once."""
    work()


@dg.job(
    executor_def=slurm_executor.configured({"default": "job"}, name="slurm"),
)
def chaos_steps() -> None:
    """Work once, in a job that the run asks for."""
    work()


defs = dg.Definitions(jobs=[chaos_job, chaos_steps])
