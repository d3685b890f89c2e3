"""``hpc-agent jobs | runs | requests | history``: what the agent has, a line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from hpc_agent.cli.arguments import (
    ConfigOption,
    JsonOption,
    LimitOption,
    LocationOption,
    NameArgument,
    RunOption,
    SinceOption,
    WatchOption,
)
from hpc_agent.cli.output import print_json
from hpc_agent.cli.selecting import selects
from hpc_agent.cli.table import Column, print_table
from hpc_agent.cli.times import iso_time_of, length_of, since_option, time_of
from hpc_agent.cli.watching import show
from hpc_agent.inspection.names import SHORT_RUN_ID
from hpc_agent.store.selection import Selection

Rows = Sequence[dict[str, Any]]


def state_style(state: str) -> str:
    """Return the colour of a state on a terminal."""
    return {
        "RUNNING": "green",
        "COMPLETED": "dim",
        "PENDING": "yellow",
        "FAILED": "red",
        "TIMEOUT": "red",
        "OUT_OF_MEMORY": "red",
        "NODE_FAIL": "red",
    }.get(state, "")


def short_id(run_id: str) -> str:
    """Return a run's id as Dagster's UI shows it."""
    return run_id[:SHORT_RUN_ID]


RUN_ID = Column("run_id", "run", short=short_id)
WAIT = Column("wait_seconds", "wait", short=length_of, whole="{:.1f}".format)
ELAPSED = Column("elapsed_seconds", "elapsed", short=length_of, whole="{:.1f}".format)
STATE = Column("state", style=state_style)
DESCRIPTION = Column("description", elastic=True)
JOBS = (
    Column("job_id", "job"),
    Column("kind", short=lambda kind: kind.replace("_", " ")),
    Column("location", elastic=True),
    RUN_ID,
    Column("description", elastic=True),
)
RUNS = (
    RUN_ID,
    Column("job_name", "name", elastic=True),
    Column("location", elastic=True),
    STATE,
    WAIT,
    ELAPSED,
    Column("attempts", "tries"),
    Column("job_id", "job"),
    DESCRIPTION,
)
REQUESTS = (
    Column("request_id", "request", short=short_id),
    Column("api", "what", short=lambda api: api.lower().replace("_", " "), elastic=True),
    Column("location", elastic=True),
    RUN_ID,
    Column("state", elastic=True),
    Column("open_seconds", "open for", short=length_of, whole="{:.1f}".format),
)
HISTORY = (
    Column("at", short=time_of, whole=iso_time_of),
    Column("phase"),
    STATE,
    Column("reason", elastic=True),
    Column("source"),
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(jobs)
    app.command()(runs)
    app.command()(requests)
    app.command()(history)


@selects
def jobs(
    *,
    config: ConfigOption = None,
    asked: Selection,
    json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List the jobs of the agent, newest first: runs, their steps, code servers, packs of them."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.jobs import read_jobs

    settings = load_config(config)
    _list(JOBS, lambda: read_jobs(settings, asked), json=json, watch=watch)


@selects
def runs(
    *,
    config: ConfigOption = None,
    asked: Selection,
    json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List the runs, newest first, each as its newest attempt stands."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.jobs import read_runs

    settings = load_config(config)
    _list(RUNS, lambda: read_runs(settings, asked), json=json, watch=watch)


def requests(
    *,
    config: ConfigOption = None,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Also those of the last day that are answered.")
    ] = False,
    location: LocationOption = None,
    run: RunOption = None,
    since: SinceOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List what the control plane has asked for, newest first, and what has become of it."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.requests import read_requests

    settings, from_then = load_config(config), since_option(since)

    def read() -> Rows:
        return read_requests(
            settings,
            limit=limit,
            everything=everything,
            since=from_then,
            location=location,
            run_id=run,
        )

    _list(REQUESTS, read, json=json, watch=watch)


def history(
    name: NameArgument,
    config: ConfigOption = None,
    json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """Show the states that one job has been in, and who saw each."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.jobs import read_history

    settings = load_config(config)
    _list(HISTORY, lambda: read_history(settings, name), json=json, watch=watch)


def _list(
    columns: Sequence[Column], read: Callable[[], Rows], *, json: bool, watch: float | None
) -> None:
    show(lambda: print_json(read()) if json else print_table(columns, read()), watch)
