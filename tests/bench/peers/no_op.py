"""The code location of all contestants: runs that do nothing, tell, or print; a sensor."""

import sys
import time
from collections.abc import Iterator

import dagster as dg


class Telling(dg.Config):
    """How many events."""

    count: int


class Printing(dg.Config):
    """How long lines with the time are printed, and how many megabytes after them."""

    seconds: float
    megabytes: int


@dg.op
def nothing() -> None:
    """Do nothing."""


@dg.op
def tell(context: dg.OpExecutionContext, config: Telling) -> None:
    """Write events, one after the other."""
    for number in range(config.count):
        context.log.info(f"event {number}")


@dg.op
def print_lines(config: Printing) -> None:
    """Print when each line was printed, then much, then when that was printed."""
    until = time.time() + config.seconds
    while time.time() < until:
        print(f"line {time.time():.3f}", flush=True)
        time.sleep(0.25)  # the pace of what is measured
    line = "x" * 1023 + "\n"
    for _ in range(config.megabytes * 1024):
        sys.stdout.write(line)
    print(f"all {time.time():.3f}", flush=True)


@dg.job(executor_def=dg.in_process_executor)
def no_op() -> None:
    """The smallest run."""
    nothing()


@dg.job(executor_def=dg.in_process_executor)
def telling() -> None:
    """A run that tells much."""
    tell()


@dg.job(executor_def=dg.in_process_executor)
def printing() -> None:
    """A run that prints much."""
    print_lines()


@dg.sensor(job=no_op)
def idle_sensor() -> Iterator[dg.SkipReason]:
    """Find nothing to do."""
    yield dg.SkipReason("nothing to do")


defs = dg.Definitions(jobs=[no_op, telling, printing], sensors=[idle_sensor])
