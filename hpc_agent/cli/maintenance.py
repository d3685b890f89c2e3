"""``hpc-agent control-plane maintenance``: make agents and jobs wait, and let them go on."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_agent.cli.gateway_database import (
    HomeOption,
    JsonOption,
    audited,
    errors_told,
    open_database,
)

if TYPE_CHECKING:
    from hpc_agent.control_plane.store.maintenance import Maintenance

app = typer.Typer(
    no_args_is_help=True, help="Make agents and jobs wait while you work on the control plane."
)


@app.command("on")
def turn_on(
    home: HomeOption = None,
    message: Annotated[str | None, typer.Option(help="What the agents' logs say.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="End by itself. [default: until `off`]")
    ] = None,
) -> None:
    """Answer every call of agents, jobs and users with "come back later"."""
    with errors_told():
        from hpc_agent.control_plane.store.maintenance import DEFAULT_MESSAGE, MaintenanceSwitch

        with audited(home, "maintenance", "on"), open_database(home) as database:
            maintenance = MaintenanceSwitch(database).turn_on(message or DEFAULT_MESSAGE, minutes)
        typer.echo(_line(maintenance))


@app.command("off")
def turn_off(home: HomeOption = None) -> None:
    """Serve again."""
    with errors_told():
        from hpc_agent.control_plane.store.maintenance import MaintenanceSwitch

        with audited(home, "maintenance", "off"), open_database(home) as database:
            was_on = MaintenanceSwitch(database).turn_off()
        typer.echo("maintenance is off" if was_on else "maintenance was not on")


@app.command("status")
def show(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Tell whether maintenance is on."""
    with errors_told():
        from hpc_agent.control_plane.store.maintenance import MaintenanceSwitch

        with open_database(home) as database:
            current = MaintenanceSwitch(database).current()
        if as_json:
            typer.echo(json.dumps({"maintenance": asdict(current) if current else None}))
        else:
            typer.echo(_line(current))


def _line(maintenance: Maintenance | None) -> str:
    if maintenance is None:
        return "maintenance is off"
    until = "until `maintenance off`"
    if maintenance.until is not None:
        end = datetime.fromtimestamp(maintenance.until, tz=UTC)
        until = f"until {end.isoformat('T', 'seconds')}"
    return f"maintenance is on {until}: {maintenance.message}"
