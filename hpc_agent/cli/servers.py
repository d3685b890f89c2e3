"""``hpc-agent servers``: the code servers, or why there is none."""

from __future__ import annotations

import typer

from hpc_agent.cli.arguments import (
    ConfigOption,
    DeploymentOption,
    JsonOption,
    LocationOption,
    WatchOption,
)
from hpc_agent.cli.output import print_json
from hpc_agent.cli.table import Column, print_table
from hpc_agent.cli.times import iso_time_of, time_of
from hpc_agent.cli.watching import show


def _style(status: str) -> str:
    return {"serving": "green", "starting": "yellow", "failed": "red"}.get(status, "")


SERVERS = (
    Column("deployment"),
    Column("location", elastic=True),
    Column("status", style=_style),
    Column("why", elastic=True),
)
_WITH_TIMES = (
    *SERVERS[:3],
    Column("deployed_at", "deployed", short=time_of, whole=iso_time_of),
    SERVERS[3],
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(servers)


def servers(
    *,
    config: ConfigOption = None,
    location: LocationOption = None,
    deployment: DeploymentOption = None,
    json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List the code servers with their jobs; of a location that does not load, why not."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.servers import read_servers

    settings = load_config(config)

    def once() -> None:
        rows = [
            row
            for row in read_servers(settings)
            if location in {None, row["location"]} and deployment in {None, row["deployment"]}
        ]
        if json:
            print_json(rows)
        else:
            print_table(_WITH_TIMES, rows)

    show(once, watch)
