"""The command ``hpc-agent``: parse, call, print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hpc_agent import __version__
from hpc_agent.cli import (
    agent,
    backup,
    config,
    control_plane,
    debug,
    demo,
    docs,
    doctor,
    explain,
    init,
    jobs,
    logs,
    metrics,
    operate,
    options,
    outgoing,
    pool,
    report,
    servers,
    service,
    support,
    template,
    top,
)
from hpc_agent.cli.output import EXIT_FAILURE, EXIT_USAGE, print_error, print_line
from hpc_agent.errors import ConfigError, HpcAgentError, UsageError

app = typer.Typer(
    name="hpc-agent",
    help="The Dagster hybrid agent for HPC: code servers and runs as Slurm jobs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print_line(f"hpc-agent {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Hold the options of the command itself."""


agent.register(app)
jobs.register(app)
servers.register(app)
logs.register(app)
top.register(app)
explain.register(app)
debug.register(app)
operate.register(app)
demo.register(app)
docs.register(app)
doctor.register(app)
init.register(app)
support.register(app)
report.register(app)
backup.register(app)
backup.register_control_plane(control_plane.app)
app.add_typer(config.app, name="config")
app.add_typer(pool.app, name="pool")
app.add_typer(control_plane.app, name="control-plane")
app.add_typer(metrics.app, name="metrics")
app.add_typer(options.app, name="options")
app.add_typer(outgoing.app, name="outgoing")
app.add_typer(service.app, name="service")
app.add_typer(template.app, name="template")


def main() -> None:
    """Run the command. Errors of ours are one message, never a traceback; exit code 2 for usage."""
    try:
        app()
    except (ConfigError, UsageError) as error:
        print_error(str(error))
        sys.exit(EXIT_USAGE)
    except HpcAgentError as error:
        print_error(str(error))
        sys.exit(EXIT_FAILURE)
