"""``hpc-agent support-bundle``: what somebody needs who helps from afar, in one file."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from hpc_agent.cli.arguments import ConfigOption
from hpc_agent.cli.output import print_line
from hpc_agent.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("support-bundle")(support_bundle)


def support_bundle(
    *,
    config: ConfigOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; else hpc-agent-support-TIME.tar.gz here."),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", "-r", help="Also this run, with what it has printed."),
    ] = None,
    no_doctor: Annotated[
        bool, typer.Option("--no-doctor", help="Do not examine the site for it.")
    ] = False,
) -> None:
    """Pack versions, settings, state and the doctor's findings into one file, without secrets.

    What runs have printed is in it only for those that are named. Look before you send it.
    """
    from hpc_agent.config import load_config
    from hpc_agent.doctor.examination import Wish, examine
    from hpc_agent.doctor.support_bundle import write_bundle

    settings = load_config(config)
    path = output or Path(f"hpc-agent-support-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    results = []
    if not no_doctor:
        results = asyncio.run(examine(settings, Wish(with_probe=False), say=_say))
    try:
        names = write_bundle(settings, path, runs=run or [], results=results)
    except FileExistsError:
        raise UsageError(f"--output: {path} exists") from None
    except OSError as error:
        raise UsageError(f"--output: {path}: {error.strerror}") from None
    print_line(f"{path}:")
    for name in names:
        print_line(f"  {name}")
    print_line("Tokens and passwords are replaced; look through it before you send it.")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
