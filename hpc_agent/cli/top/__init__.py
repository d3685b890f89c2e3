"""``hpc-agent top``: jobs, what they print and why they wait, live on one screen."""

from __future__ import annotations

from typing import Annotated

import typer

from hpc_agent.cli.arguments import ConfigOption
from hpc_agent.cli.output import is_terminal
from hpc_agent.errors import HpcAgentError, UsageError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(top)


def top(
    config: ConfigOption = None,
    interval: Annotated[
        float, typer.Option("--interval", "-i", help="Seconds between two looks.", min=0.2)
    ] = 2.0,
) -> None:
    """Watch runs and jobs on one screen, by keys alone; ``?`` shows them, ``q`` ends it.

    It reads what the agent has written down: Slurm is asked nothing.
    """
    from hpc_agent.cluster.cluster import files_of
    from hpc_agent.config import load_config
    from hpc_agent.inspection.status import read_status

    if not is_terminal():
        raise UsageError("top: needs a terminal; `hpc-agent runs --watch 2` does for a pipe")
    try:
        from hpc_agent.cli.top.app import Top
    except ModuleNotFoundError as error:
        if error.name != "textual":
            raise
        raise HpcAgentError(
            "top: Textual is not installed: `pip install 'dagster-hpc-agent[top]'` installs it"
        ) from None
    settings = load_config(config)
    read_status(settings)
    with files_of(settings) as files:
        Top(settings, files, every_seconds=interval).run()
