"""``hpc-agent doctor``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption
from hpc_agent.cli.output import EXIT_FAILURE, print_json, print_line

if TYPE_CHECKING:
    from hpc_agent.doctor.examination import Result


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(doctor)


def doctor(
    *,
    config: ConfigOption = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Make this check only; may be given several times.")
    ] = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Submit no job that looks at a compute node.")
    ] = False,
    probe_timeout: Annotated[
        float, typer.Option(help="Seconds that the probe job may take, its wait included.", min=1)
    ] = 120,
    json: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print what is checked, and look at nothing.")
    ] = False,
) -> None:
    """Find what this site has, and say what to change. Exit code 1 when there is a problem."""
    from hpc_agent.config import load_config
    from hpc_agent.doctor import checks
    from hpc_agent.doctor.examination import Wish, examine
    from hpc_agent.doctor.report import rows

    if markdown:
        print_line(checks.markdown())
        return
    wish = Wish(only=only or (), with_probe=not no_probe, probe_seconds=probe_timeout)
    results = asyncio.run(examine(load_config(config), wish, say=_say))
    if json:
        print_json(rows(results))
    else:
        print_results(results)
    if not is_ready(results):
        raise typer.Exit(EXIT_FAILURE)


def is_ready(results: Sequence[Result]) -> bool:
    """Whether nothing keeps the agent from doing its work."""
    from hpc_agent.doctor.finding import Status

    return all(result.finding.status is not Status.PROBLEM for result in results)


def print_results(results: Sequence[Result]) -> None:
    """Print what was found, group by group."""
    from hpc_agent.doctor import checks

    group = ""
    for result in results:
        if checks.GROUPS[result.check.needs] != group:
            group = checks.GROUPS[result.check.needs]
            print_line(f"\n{group}")
        finding = result.finding
        print_line(f"  {finding.status.value:<8} {result.check.name}: {finding.fact}")
        if finding.advice:
            print_line(f"           → {finding.advice}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
