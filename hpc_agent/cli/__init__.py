"""The command ``hpc-agent``: parse, call, print."""

from __future__ import annotations

import sys

import typer

from hpc_agent.cli import (
    agent,
    config,
    control_plane,
    demo,
    doctor,
    options,
    outgoing,
    service,
    template,
)
from hpc_agent.cli.output import EXIT_FAILURE, EXIT_USAGE, print_error
from hpc_agent.errors import ConfigError, HpcAgentError

app = typer.Typer(
    name="hpc-agent",
    help="The Dagster hybrid agent for HPC: code servers and runs as Slurm jobs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
agent.register(app)
demo.register(app)
doctor.register(app)
app.add_typer(config.app, name="config")
app.add_typer(control_plane.app, name="control-plane")
app.add_typer(options.app, name="options")
app.add_typer(outgoing.app, name="outgoing")
app.add_typer(service.app, name="service")
app.add_typer(template.app, name="template")


def main() -> None:
    """Run the command. Errors of ours are one message, never a traceback; exit code 2 for usage."""
    try:
        app()
    except ConfigError as error:
        print_error(str(error))
        sys.exit(EXIT_USAGE)
    except HpcAgentError as error:
        print_error(str(error))
        sys.exit(EXIT_FAILURE)
