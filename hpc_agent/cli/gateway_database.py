"""What the commands of ``control-plane`` share: the home, its database, and how errors are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_agent.errors import ConfigError, HpcAgentError

if TYPE_CHECKING:
    from hpc_agent.control_plane.store.database import Database

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Directory of the control plane. [default: $DAGSTER_HOME]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def open_database(home: Path | None) -> Iterator[Database]:
    from hpc_agent.control_plane.home import resolve_home
    from hpc_agent.control_plane.store.database import Database

    database = Database(resolve_home(home).database_url)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def audited(
    home: Path | None, action: str, what: str, about: Mapping[str, Sequence[str]] | None = None
) -> Iterator[None]:
    """Note in the audit log what the block does, and whether it did."""
    from hpc_agent.control_plane.audit.entry import Action, Entry, Outcome, command_line
    from hpc_agent.control_plane.audit.log import AuditLog
    from hpc_agent.control_plane.home import resolve_home

    log = AuditLog(resolve_home(home).audit_log)
    outcome = Outcome.FAILED
    try:
        yield
        outcome = Outcome.OK
    finally:
        log.append(
            Entry(
                action=Action(action),
                actor=command_line(),
                what=what,
                outcome=outcome,
                about=about or {},
            )
        )


@contextmanager
def errors_told() -> Iterator[None]:
    """Tell an error in one line on stderr: exit code 2 for wrong settings, else 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = "pip install 'dagster-hpc-agent[control-plane]'"
        typer.echo(f"error: the control plane needs {error.name}: {extra}", err=True)
        raise typer.Exit(2) from error
    except HpcAgentError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
