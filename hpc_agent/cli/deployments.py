"""``hpc-agent control-plane deployment``: create, list, delete."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from hpc_agent.cli.gateway_database import (
    HomeOption,
    JsonOption,
    audited,
    errors_told,
    open_database,
)

app = typer.Typer(no_args_is_help=True, help="Deployments: prod, staging, one per git branch.")

NameArgument = Annotated[str, typer.Argument(help="The deployment.")]


@app.command()
def create(
    name: NameArgument,
    home: HomeOption = None,
    branch: Annotated[
        bool, typer.Option("--branch", help="For agents that serve branch deployments.")
    ] = False,
) -> None:
    """Make an empty deployment, to deploy locations to with `deploy --deployment NAME`."""
    with errors_told():
        from hpc_agent.control_plane.store.deployments import Deployments

        about = {"deployment": [name]}
        with audited(home, "deploy", "create", about), open_database(home) as database:
            Deployments(database).create(name, branch=branch)
        typer.echo(f"created {name}")


@app.command("list")
def list_all(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the deployments."""
    with errors_told():
        from hpc_agent.control_plane.store.deployments import Deployments

        with open_database(home) as database:
            found = Deployments(database).all()
        if as_json:
            typer.echo(json.dumps([asdict(each) for each in found]))
        for each in () if as_json else found:
            branch = f"  {each.repository} {each.branch}" if each.branch else ""
            typer.echo(f"{each.name}  {'branch' if each.is_branch else 'full'}{branch}")


@app.command()
def delete(name: NameArgument, home: HomeOption = None) -> None:
    """Remove a deployment and its locations; the history of its runs stays."""
    with errors_told():
        from hpc_agent.control_plane.store.deployments import Deployments

        about = {"deployment": [name]}
        with audited(home, "deploy", "delete", about), open_database(home) as database:
            Deployments(database).delete(name)
        typer.echo(f"deleted {name}")
