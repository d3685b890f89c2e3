"""``hpc-agent report``: what runs have waited for, used and failed of."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption
from hpc_agent.cli.output import print_json, print_line
from hpc_agent.cli.table import Column, print_table
from hpc_agent.cli.times import length_of, since_option, time_of
from hpc_agent.errors import UsageError


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _hours(hours: float) -> str:
    return f"{hours:,.2f}"


COLUMNS = (
    Column("name", " ", elastic=True),
    Column("jobs"),
    Column("failed"),
    Column("wait_median", "wait", short=length_of, whole="{:.1f}".format),
    Column("wait_p90", "90 % of waits", short=length_of, whole="{:.1f}".format),
    Column("node_hours", short=_hours, whole=_hours),
    Column("cpu_efficiency", "cpu", short=_percent, whole=_percent),
    Column("memory_efficiency", "mem", short=_percent, whole=_percent),
    Column("gpu_utilization", "gpu", short=_percent, whole=_percent),
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(report)


def report(
    config: ConfigOption = None,
    since: Annotated[
        str, typer.Option(help="From when on: 90m, 12h, 30d, or 2026-03-01T14:00.")
    ] = "30d",
    html: Annotated[
        Path | None, typer.Option("--html", help="Write one file for a browser, with plots.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show waits in the queue, efficiency, failures and node hours of the runs of some time."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.usage_report import read_usage

    now = time.time()
    found = read_usage(load_config(config), since=since_option(since) or 0.0, until=now)
    if json:
        print_json(asdict(found))
        return
    if html is not None:
        _write(html, found)
        return
    print_line(f"Jobs of runs that ended since {time_of(found.since)}")
    print_table(COLUMNS, [asdict(found.total)])
    for title, rows in (
        ("By code location", found.by_location),
        ("By Dagster job", found.by_job),
        ("By asset", found.by_asset),
    ):
        if rows:
            print_line(f"\n{title}")
            print_table(COLUMNS, map(asdict, rows))
    if found.failures:
        ends = ", ".join(f"{count} {end}" for end, count in found.failures.items())
        print_line(f"\nFailures: {ends}")


def _write(path: Path, found: Any) -> None:
    from hpc_agent.inspection.report_page import page

    try:
        path.write_text(page(found))
    except OSError as error:
        raise UsageError(f"--html: {path}: {error.strerror}") from None
    print_line(str(path))
