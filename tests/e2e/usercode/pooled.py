"""Short runs that live in a pool: what they are given, and how they end."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import dagster as dg

from dagster_hpc import slurm_executor


class Wait(dg.Config):
    """How long to wait for a file; it is there at once without one."""

    path: str = ""


@dg.op
def looks(context: dg.OpExecutionContext) -> None:
    """Say who executes, and where."""
    print("printed in a pool")
    number = random.random()  # noqa: S311  (whether it is another one in each run)
    context.log.info(
        f"in job {os.environ.get('SLURM_JOB_ID')} session {os.getsid(0) == os.getpid()} "
        f"random {number} tmp {os.environ['HPC_AGENT_TMP']} python of {sys.prefix}"
    )


@dg.op
def waits(config: Wait) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + 120
    while not Path(config.path).exists() and time.monotonic() < until:
        time.sleep(0.05)


@dg.op
def dies() -> None:
    """Go at once."""
    print("about to die", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


@dg.op
def raises() -> None:
    """Fail as user code does."""
    raise RuntimeError("as user code does")


@dg.job(executor_def=dg.in_process_executor)
def quick() -> None:
    """Seconds of work in a pool."""
    looks()


@dg.job(executor_def=dg.in_process_executor)
def waiting() -> None:
    """A run that goes on for as long as the test wants."""
    waits()


@dg.job(executor_def=dg.in_process_executor)
def dying() -> None:
    """A run whose process is killed."""
    dies()


@dg.job(executor_def=dg.in_process_executor)
def failing() -> None:
    """A run that fails."""
    raises()


@dg.job(executor_def=dg.in_process_executor, tags={"dagster-hpc/mem": "200M"})
def sized() -> None:
    """A run that asks for memory, and so gets a job of its own."""
    looks()


@dg.job(executor_def=slurm_executor.configured({"default": "job"}, name="slurm"))
def stepped() -> None:
    """A run whose step is a job, and so lives in the pool as well."""
    looks()


defs = dg.Definitions(jobs=[quick, waiting, dying, failing, sized, stepped])
