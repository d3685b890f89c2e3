"""``hpc-agent debug``: a look into a running job."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from hpc_agent.cli.arguments import ConfigOption, NameArgument
from hpc_agent.cli.output import print_line
from hpc_agent.errors import HpcAgentError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(debug)


def debug(
    name: NameArgument,
    config: ConfigOption = None,
    shell: Annotated[
        bool, typer.Option("--shell", help="Open a shell in the job's allocation instead.")
    ] = False,
) -> None:
    """Print what each process of a running job is doing: its Python stacks, where py-spy is there.

    py-spy is looked for beside the process's own Python and on PATH of the node.
    """
    from hpc_agent.config import load_config
    from hpc_agent.inspection.debugging import shell_command, stacks

    settings = load_config(config)
    if not shell:
        print_line(asyncio.run(stacks(settings, name)).rstrip())
        return
    argv = shell_command(settings, name)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - an argv, no shell
    except OSError as error:
        raise HpcAgentError(f"{argv[0]}: {error.strerror}") from error
