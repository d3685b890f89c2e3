"""``hpc-agent backup | restore``, and the same of ``hpc-agent control-plane``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hpc_agent.backup import back_up, restore
from hpc_agent.cli.arguments import ConfigOption
from hpc_agent.cli.gateway_database import HomeOption, errors_told
from hpc_agent.cli.output import print_line
from hpc_agent.cli.times import time_of
from hpc_agent.errors import ConfigError, UsageError

NewFileArgument = Annotated[Path, typer.Argument(help="The archive (.tar.gz); not there yet.")]
FileArgument = Annotated[Path, typer.Argument(help="An archive that `backup` has written.")]
_AGENT = "agent"
_CONTROL_PLANE = "control-plane"
# Of the control plane: sockets, addresses of the processes that run, and their logs.
_NOT_KEPT = ("s", "log", "logs", "control-plane.json", "tmp")


def register(app: typer.Typer) -> None:
    """Add the agent's commands to the application."""
    app.command("backup")(backup_agent)
    app.command("restore")(restore_agent)


def register_control_plane(app: typer.Typer) -> None:
    """Add those of the control plane to its own."""
    app.command("backup")(backup_control_plane)
    app.command("restore")(restore_control_plane)


def backup_agent(archive: NewFileArgument, config: ConfigOption = None) -> None:
    """Copy the agent's state into one file, while it runs or not.

    It holds the secret from which the tokens of jobs are made: keep it as you keep those.
    """
    from hpc_agent.config import load_config

    _write(load_config(config).home, archive, kind=_AGENT)


def restore_agent(archive: FileArgument, config: ConfigOption = None) -> None:
    """Put the agent's state back into ``home`` of agent.yaml, which must be empty.

    What has happened since the backup the agent finds out: jobs that it does not know are not
    adopted, and runs that it believes to go on are looked for.
    """
    from hpc_agent.config import load_config

    home = load_config(config).home
    manifest = restore(archive, home, kind=_AGENT)
    print_line(f"{home}: as of {time_of(manifest.made_at)}, by hpc-agent {manifest.version}")


def backup_control_plane(
    archive: NewFileArgument,
    home: HomeOption = None,
    compute_logs: Annotated[
        bool, typer.Option("--compute-logs/--no-compute-logs", help="With what steps printed.")
    ] = True,
) -> None:
    """Copy the control plane's directory into one file, while it runs or not.

    Each SQLite database is copied as of one moment. Tables in PostgreSQL are not in it: pg_dump
    copies those. It holds private keys and hashes of tokens.
    """
    with errors_told():
        root = _root(home)
        left_out = _NOT_KEPT if compute_logs else (*_NOT_KEPT, "storage")
        _write(root, archive, kind=_CONTROL_PLANE, left_out=left_out)
        from hpc_agent.control_plane.database_url import url_in

        if url_in(root / "dagster.yaml"):
            print_line("Its tables are in PostgreSQL, and not in this file: copy them by pg_dump.")


def restore_control_plane(archive: FileArgument, home: HomeOption = None) -> None:
    """Put a control plane back into a directory that is empty or not there."""
    with errors_told():
        root = _root(home)
        manifest = restore(archive, root, kind=_CONTROL_PLANE)
        print_line(f"{root}: as of {time_of(manifest.made_at)}, by hpc-agent {manifest.version}")


def _root(home: Path | None) -> Path:
    given = home or os.environ.get("DAGSTER_HOME")
    if not given:
        raise ConfigError("no --home, and DAGSTER_HOME is not set: which control plane?")
    return Path(given).expanduser().absolute()


def _write(home: Path, archive: Path, *, kind: str, left_out: tuple[str, ...] = ()) -> None:
    try:
        count = back_up(home, archive, kind=kind, leaves_out=lambda path: path.parts[0] in left_out)
    except FileExistsError:
        raise UsageError(f"{archive} exists; a backup overwrites nothing") from None
    except OSError as error:
        raise UsageError(f"{archive}: {error.strerror}") from None
    size = archive.stat().st_size / (1 << 20)
    print_line(f"{archive}: {count} files of {home}, {size:.1f} MiB")
