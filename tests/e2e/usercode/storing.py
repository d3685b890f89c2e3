"""Values that one run hands to another by Dagster's default IO manager."""

import logging
from pathlib import Path

import dagster as dg


@dg.asset
def upstream() -> list[int]:
    """A value of one run."""
    return [1, 2, 3]


@dg.asset
def downstream(upstream: list[int]) -> int:
    """Materialized by another run."""
    return sum(upstream)


@dg.op
def makes() -> int:
    """Succeeds, and is not executed again."""
    return 42


class Again(dg.Config):
    """The file that says that the step has failed once."""

    marker: str


@dg.op
def fails_once(config: Again, value: int) -> int:
    """Fail the first time."""
    marker = Path(config.marker)
    if not marker.exists():
        marker.touch()
        raise ValueError("the first time")
    return value


@dg.job(executor_def=dg.multiprocess_executor)
def failing_once() -> None:
    """Re-executed from the failure."""
    fails_once(makes())


@dg.op
def logs_by_python() -> None:
    """Log as libraries do."""
    logging.getLogger("mine").info("told by a managed logger")
    logging.getLogger("other").info("told by another")


@dg.job(executor_def=dg.in_process_executor)
def python_logs() -> None:
    """Events of managed loggers."""
    logs_by_python()


defs = dg.Definitions(assets=[upstream, downstream], jobs=[failing_once, python_logs])
