"""Ops that change what is around them: directories, environment, logging, streams."""

import io
import json
import locale
import logging.config
import os
import sys
import tempfile
import warnings
from collections.abc import Callable

import dagster as dg


def directory() -> None:
    """Change it, and remove it, so that there is no working directory any more."""
    with tempfile.TemporaryDirectory() as path:
        os.chdir(path)


def environment() -> None:
    """Change all that programs and libraries go by."""
    os.umask(0o077)
    for name in ("HOME", "TMPDIR", "PATH", "DAGSTER_HOME", "PYTHONPATH", "HPC_AGENT_API_URL"):
        os.environ[name] = "/no/such/place"


def loggers() -> None:
    """Configure logging as applications do, which disables every logger that is there already."""
    logging.config.dictConfig(
        {"version": 1, "disable_existing_loggers": True, "root": {"level": "CRITICAL"}}
    )


def warned() -> None:
    """Make errors of warnings, as ``python -W error`` does."""
    warnings.simplefilter("error")


def streams() -> None:
    """Replace standard output and error, in Python and below it, and do not put them back."""
    sys.stdout = io.StringIO()
    print("to nowhere")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def changing(change: Callable[[], None]) -> dg.OpDefinition:
    """Return an op that makes a change, tells of it and hands a value on."""

    @dg.op(name=f"changes_{change.__name__}")
    def changes(context: dg.OpExecutionContext, changed: list[str]) -> list[str]:
        change()
        context.log.info(f"told after a change of {change.__name__}")
        return [*changed, change.__name__]

    return changes


@dg.op
def begins() -> list[str]:
    """Has changed nothing."""
    return []


CHANGES = [changing(each) for each in (directory, environment, loggers, warned, streams)]


@dg.job(executor_def=dg.in_process_executor)
def changing_everything() -> None:
    """One process; each change comes on top of those before."""
    changed = begins()
    for change in CHANGES:
        changed = change(changed)


@dg.asset
def inner() -> int:
    """Materialized by an op."""
    return 6


@dg.op
def looks_inside(context: dg.OpExecutionContext) -> None:
    """At the instance, as it is got from DAGSTER_HOME, and at a run within this run."""
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(context.run_id)
        context.log.info(f"the instance knows {run.job_name if run else None}")
    result = dg.materialize([inner])
    context.log.info(f"nested in memory: {result.success}")
    context.instance.report_runless_asset_event(dg.AssetMaterialization("reported"))
    event = context.instance.get_latest_materialization_event(dg.AssetKey("reported"))
    context.log.info(f"reported without a run: {event is not None}")
    dg.materialize([inner], instance=context.instance)


@dg.job(executor_def=dg.in_process_executor)
def nested() -> None:
    """Runs within a run."""
    looks_inside()


@dg.op
def says_its_locale(context: dg.OpExecutionContext) -> None:
    """What the location's environment makes of it."""
    found = {"encoding": locale.getpreferredencoding(), "stdout": sys.stdout.encoding}
    context.log.info(f"locale: {json.dumps(found)}")
    print("grüße 🌧", flush=True)


@dg.job(executor_def=dg.multiprocess_executor)
def in_its_locale() -> None:
    """In a location with LC_ALL=C and PYTHONWARNINGS=error."""
    says_its_locale()


defs = dg.Definitions(jobs=[changing_everything, nested, in_its_locale])
