"""``hpc-agent demo``."""

from __future__ import annotations

import contextlib
import enum
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_agent.cli.output import EXIT_FAILURE, print_error, print_json

if TYPE_CHECKING:
    from hpc_agent.demo.facts import RunFacts


class SchedulerChoice(enum.Enum):
    """Which scheduler the demo takes."""

    AUTO = "auto"
    SLURM = "slurm"
    LOCAL = "local"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(demo)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End when the run has ended.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the closing table as JSON on standard output.")
    ] = False,
    scheduler: Annotated[
        SchedulerChoice,
        typer.Option(
            help="auto: a Slurm that answers, else one that is started here (root on Debian or "
            "Ubuntu), else child processes."
        ),
    ] = SchedulerChoice.AUTO,
    webserver_port: Annotated[int, typer.Option(help="Port of the UI; 0: any free one.")] = 0,
) -> None:
    """Show the whole thing on this machine: control plane, agent, cluster, one run as a job.

    Needs the extra [control-plane]. Without --once everything stays up until Ctrl-C.
    """
    from rich.console import Console

    from hpc_agent.demo.facts import table
    from hpc_agent.demo.story import DemoOptions, tell

    def show(facts: RunFacts) -> None:
        if json:
            print_json(asdict(facts) | {"succeeded": facts.succeeded})
            sys.stdout.flush()
        else:
            Console().print(table(facts))
        if not once:
            Console(stderr=True).print(f"Everything stays up. UI: {facts.ui}. Ctrl-C ends it.")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()

    try:
        facts = tell(
            DemoOptions(scheduler=scheduler.value, webserver_port=webserver_port, hold=show)
        )
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(EXIT_FAILURE)
    if not facts.succeeded:
        sys.exit(EXIT_FAILURE)
