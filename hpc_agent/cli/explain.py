"""``hpc-agent explain``: one job, with all that is known of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from hpc_agent.cli.arguments import ConfigOption, JsonOption, NameArgument
from hpc_agent.cli.jobs import ELAPSED, HISTORY, STATE, WAIT
from hpc_agent.cli.options import OPTIONS, with_older
from hpc_agent.cli.output import print_json, printable_lines
from hpc_agent.cli.table import Column, print_table

if TYPE_CHECKING:
    from hpc_agent.inspection.explanation import Explanation

ATTEMPTS = (
    Column("attempt"),
    Column("job_id", "job"),
    STATE,
    Column("nodes", elastic=True),
    WAIT,
    ELAPSED,
    Column("description", elastic=True),
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(explain)


def explain(name: NameArgument, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Say of one job where it is and why, which option came from where, and what happened to it."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.explanation import read_explanation

    found = read_explanation(load_config(config), name)
    if json:
        print_json(asdict(found))
        return
    print_page(found, Console(highlight=False, soft_wrap=True))


def print_page(found: Explanation, console: Console) -> None:
    """Print what is known of a job."""

    def say(text: str) -> None:
        console.print(printable_lines(text), markup=False)

    for line in _heading(found.job):
        say(line)
    say(f"Its files: {found.directory} (`hpc-agent logs {found.job['key']}`)")
    for note in found.notes:
        say(note)
    sections: list[tuple[str, Any, list[dict[str, Any]]]] = [
        ("Attempts", ATTEMPTS, found.attempts if len(found.attempts) > 1 else []),
        ("Options, and where each comes from", OPTIONS, with_older(found.options)),
        ("What happened", HISTORY, found.history),
    ]
    for title, columns, rows in sections:
        if rows:
            say(f"\n{title}")
            print_table(columns, rows, console)


def _heading(job: dict[str, Any]) -> list[str]:
    what = f"Run {job['run_id']}" if job["run_id"] else job["kind"].replace("_", " ").capitalize()
    what = f"Step {job['step']} of run {job['run_id']}" if job["step"] else what
    of = " of ".join(filter(None, [job["job_name"], job["location"]]))
    attempt = f", attempt {job['attempt']}" if job["attempt"] > 1 else ""
    return [
        f"{what}: {of}, deployment {job['deployment']}{attempt}",
        *job["description"].split("\n"),
    ]
