"""`hpc-agent service`: run the agent as a systemd user service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpc_agent import service

app = typer.Typer(
    no_args_is_help=True, help="Run the agent as a systemd user service, without root."
)

ConfigOption = Annotated[
    Path, typer.Option("--config", help="The agent's configuration file (agent.yaml).")
]
AnyHostOption = Annotated[
    bool,
    typer.Option(
        "--any-host", help="Let every machine that shares this home directory start the agent."
    ),
]
NoLimitsOption = Annotated[
    bool,
    typer.Option("--no-limits", help="Set no memory and CPU limits (for the local scheduler)."),
]
TokenCredentialOption = Annotated[
    Path | None,
    typer.Option(
        "--token-credential",
        help="Have systemd hand the agent its token from this file (LoadCredential=); agent.yaml "
        "then needs no token_file.",
    ),
]
DEFAULT_CONFIG = Path("~/.config/hpc-agent/agent.yaml")


@app.command()
def install(  # noqa: PLR0917 Typer reads options from parameters
    config: ConfigOption = DEFAULT_CONFIG,
    any_host: AnyHostOption = False,
    no_limits: NoLimitsOption = False,
    token_credential: TokenCredentialOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the unit and write nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a unit that hpc-agent did not write.")
    ] = False,
) -> None:
    """Write ~/.config/systemd/user/hpc-agent.service and print the commands that start it."""
    unit = service.this_unit(
        config, any_host=any_host, limited=not no_limits, token_credential=token_credential
    )
    if dry_run:
        typer.echo(service.render_unit(unit), nl=False)
        return
    outcome = service.install_unit(unit, service.unit_directory(), force=force)
    typer.echo(f"{outcome.path}: {'written' if outcome.changed else 'already up to date'}")
    _print_next(outcome)


@app.command()
def uninstall() -> None:
    """Remove the unit; a running agent goes on until it is stopped."""
    outcome = service.uninstall_unit(service.unit_directory())
    if not outcome.changed:
        typer.echo(f"{outcome.path}: not installed")
        return
    typer.echo(f"{outcome.path}: removed")
    _print_next(outcome)


@app.command()
def show(
    config: ConfigOption = DEFAULT_CONFIG,
    any_host: AnyHostOption = False,
    no_limits: NoLimitsOption = False,
    token_credential: TokenCredentialOption = None,
) -> None:
    """Print the unit that `install` would write here."""
    unit = service.this_unit(
        config, any_host=any_host, limited=not no_limits, token_credential=token_credential
    )
    typer.echo(service.render_unit(unit), nl=False)


def _print_next(outcome: service.Outcome) -> None:
    typer.echo("Next:")
    for step in outcome.next_steps:
        typer.echo(f"  {step}")
