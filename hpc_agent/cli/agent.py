"""``hpc-agent start | status``."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption, WatchOption
from hpc_agent.cli.output import print_json, print_line
from hpc_agent.cli.servers import SERVERS
from hpc_agent.cli.status_lines import status_lines
from hpc_agent.cli.table import print_table
from hpc_agent.cli.watching import show


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(start)
    app.command()(status)


def start(
    config: ConfigOption = None,
    take_over_work_dir: Annotated[
        bool,
        typer.Option(
            "--take-over-work-dir",
            help="Take work_dir from another agent whose home is lost for good.",
        ),
    ] = False,
) -> None:
    """Run the agent in the foreground, until it is told to stop (Ctrl-C, SIGTERM).

    Jobs outlive the agent: the next start with the same home directory adopts them.
    """
    from hpc_agent.agent.daemon import run_agent, stop_on_signals
    from hpc_agent.config import load_config
    from hpc_agent.descriptors import raise_descriptor_limit
    from hpc_agent.journal.configuration import configure_journal

    settings = load_config(config)
    configure_journal(settings.logging.journal)
    raise_descriptor_limit()

    async def serve() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        await run_agent(settings, stop, take_over_work_dir=take_over_work_dir)

    asyncio.run(serve())


def status(
    config: ConfigOption = None, json: JsonOption = False, watch: WatchOption = None
) -> None:
    """Show on one page how the agent stands: what it does, what waits, and what goes wrong."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.status import read_status

    settings = load_config(config)

    def once() -> None:
        found = read_status(settings)
        if json:
            print_json(asdict(found))
        else:
            for line in status_lines(found):
                print_line(line)
            if found.code_servers:
                print_line("")
                print_table(SERVERS, found.code_servers)

    show(once, watch)
