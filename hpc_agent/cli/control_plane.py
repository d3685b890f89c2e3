"""``hpc-agent control-plane``: start, deploy, status, schema, and groups of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hpc_agent.cli import control_plane_init, deployments, maintenance
from hpc_agent.cli.gateway_database import (
    HomeOption,
    JsonOption,
    audited,
    errors_told,
    open_database,
)
from hpc_agent.errors import ConfigError

if TYPE_CHECKING:
    from hpc_agent.control_plane.process import Addresses
    from hpc_agent.metrics.address import LocalAddress

app = typer.Typer(no_args_is_help=True, help="The self-hosted control plane.")
token_app = typer.Typer(no_args_is_help=True, help="API tokens for agents and users.")
app.add_typer(token_app, name="token")
app.add_typer(deployments.app, name="deployment")
app.add_typer(maintenance.app, name="maintenance")
control_plane_init.register(app)


@app.command()
def start(  # noqa: PLR0917 Typer reads options from parameters
    home: HomeOption = None,
    host: Annotated[
        str | None, typer.Option(help="Address of the agent API. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the agent API; 0: any. [default: 8443]")
    ] = None,
    webserver_host: Annotated[
        str | None, typer.Option(help="Address of the UI. [default: 127.0.0.1]")
    ] = None,
    webserver_port: Annotated[
        int | None, typer.Option(help="Port of the UI; 0: any. [default: 3000]")
    ] = None,
    daemon: Annotated[bool, typer.Option(help="Run dagster-daemon.")] = True,
    webserver: Annotated[bool, typer.Option(help="Run dagster-webserver.")] = True,
    ui_auth: Annotated[
        Literal["token", "header", "off"] | None,
        typer.Option(
            help="Who is let into the UI. token: who logs in with a user token; header: whom the "
            "proxy in ui.yaml names; off: everybody on this machine. "
            "[default: what ui.yaml in the home says, else token]"
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Your own certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="PostgreSQL for everything that is stored, without a password. "
            "[default: $HPC_AGENT_CONTROL_PLANE_DATABASE_URL, else what dagster.yaml says]"
        ),
    ] = None,
    metrics_listen: Annotated[
        str | None,
        typer.Option(
            help="Where Prometheus reads metrics: unix:/PATH, or 127.0.0.1:PORT. [default: nowhere]"
        ),
    ] = None,
    traces_endpoint: Annotated[
        str | None,
        typer.Option(
            help="The collector that spans go to, by OTLP over HTTP. "
            "[default: $OTEL_EXPORTER_OTLP_ENDPOINT, else nowhere]"
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Lines for people, or a JSON object each.")
    ] = "text",
    log_file: Annotated[
        Path | None, typer.Option(help="The gateway's own log. [default: standard error]")
    ] = None,
    log_max_bytes: Annotated[
        int, typer.Option(min=65536, help="A log file is put away at this size; all of them are.")
    ] = 16 << 20,
    log_keep: Annotated[int, typer.Option(min=1, help="How many of those are kept, of each.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Run gateway, webserver and daemon until interrupted.

    Where it listens is in listen.yaml of the home, which `init` has written; options go before it.
    """
    with errors_told():
        import asyncio

        from hpc_agent.control_plane.door.config import read_ui_config
        from hpc_agent.control_plane.home import resolve_home
        from hpc_agent.control_plane.listening import read_listening
        from hpc_agent.control_plane.process import StartOptions, run
        from hpc_agent.descriptors import raise_descriptor_limit
        from hpc_agent.journal.configuration import JournalOptions, configure_journal
        from hpc_agent.journal.files import Rotation

        logs = Rotation(max_bytes=log_max_bytes, keep=log_keep)
        configure_journal(JournalOptions(format=log_format, file=log_file, rotation=logs))
        raise_descriptor_limit()
        resolved = resolve_home(home, database_url)
        options = StartOptions(
            home=resolved, ui=read_ui_config(resolved.ui_yaml, ui_auth),
            listening=read_listening(resolved.listen_yaml).with_options(
                host=host, port=port,
                webserver_host=webserver_host, webserver_port=webserver_port,
            ),
            webserver=webserver, daemon=daemon, tls_certificate=tls_cert, tls_key=tls_key,
            metrics=_local_address(metrics_listen), traces=traces_endpoint, logs=logs,
        )  # fmt: skip
        asyncio.run(run(options, lambda addresses: _print_addresses(addresses, as_json)))


@app.command()
def deploy(
    file: Annotated[Path, typer.Argument(help="dagster_cloud.yaml, the format of Dagster+.")],
    home: HomeOption = None,
    deployment: Annotated[str, typer.Option(help="Deployment to change.")] = "prod",
    prune: Annotated[bool, typer.Option(help="Remove locations not in the file.")] = False,
) -> None:
    """Add or redeploy the code locations in a file; a running control plane notices at once."""
    with errors_told():
        from hpc_agent.control_plane.deploy import misfits, read_locations, unread_settings
        from hpc_agent.control_plane.store.locations import Locations

        new = read_locations(file)
        about = {"deployment": [deployment], "location": [each.name for each in new]}
        what = "deploy --prune" if prune else "deploy"
        with audited(home, "deploy", what, about), open_database(home) as database:
            Locations(database).deploy(deployment, new, prune=prune)
        for words in (*unread_settings(new), *misfits(new)):
            typer.echo(f"warning: {words}", err=True)
        names = ", ".join(location.name for location in new)
        typer.echo(f"deployed to {deployment}: {names}")


@app.command()
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show addresses, locations and agents."""
    with errors_told():
        from hpc_agent.control_plane.home import resolve_home
        from hpc_agent.control_plane.status import read_status, status_lines

        with open_database(home) as database:
            found = read_status(resolve_home(home), database)
        if as_json:
            typer.echo(json.dumps(found))
        else:
            typer.echo("\n".join(status_lines(found)))


@app.command()
def audit(
    home: HomeOption = None,
    since: Annotated[
        str | None, typer.Option(help="A time, or how long ago: 2026-03-01T12:00, 90m, 7d.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show who has done what: logins, launches, terminations, deploys, tokens; the oldest first."""
    with errors_told():
        from datetime import UTC, datetime

        from hpc_agent.control_plane.audit.reader import line_of, moment, read_entries
        from hpc_agent.control_plane.home import resolve_home

        start = moment(since, datetime.now(UTC)) if since else None
        for entry in read_entries(resolve_home(home).audit_log, start):
            typer.echo(json.dumps(entry) if as_json else line_of(entry))


@app.command()
def schema() -> None:
    """Print the agent API's GraphQL schema (SDL)."""
    with errors_told():
        from graphql import print_schema

        from hpc_agent.control_plane.graphql.executor import make_schema

        typer.echo(print_schema(make_schema()))


@app.command()
def conformance(
    schema_file: Annotated[
        Path | None,
        typer.Option(
            "--schema",
            help="Only compare the client's documents with this SDL, which `control-plane schema` "
            "of another release has printed.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the installed dagster-cloud client against a control plane of its own, and report.

    Exit code 1 when anything differs from what the client expects.
    """
    with errors_told():
        from hpc_agent.conformance.report import check, check_schema, lines

        found = check() if schema_file is None else check_schema(schema_file)
        typer.echo(json.dumps(found.as_json()) if as_json else "\n".join(lines(found)))
        if found.failures:
            raise typer.Exit(1)


@token_app.command("create")
def create_token(
    home: HomeOption = None,
    name: Annotated[str, typer.Option(help="What you will know it by.")] = "agent",
    kind: Annotated[Literal["agent", "user"], typer.Option(help="Who uses it.")] = "agent",
    role: Annotated[
        Literal["viewer", "operator", "admin"] | None,
        typer.Option(
            help="What a user may do. viewer: look; operator: launch, terminate, switch schedules "
            "too; admin: everything, wiping and deploying too. [default: admin]"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it; it is shown this once."""
    with errors_told():
        from hpc_agent.control_plane.roles import Role
        from hpc_agent.control_plane.store.tokens import TokenKind, Tokens

        if role is not None and kind == "agent":
            raise ConfigError("--role is for users: add --kind user")
        about = {"name": [name], "kind": [str(kind)], "role": [str(role or "-")]}
        with audited(home, "token", "create", about), open_database(home) as database:
            token, secret = Tokens(database).create(
                name, TokenKind(kind), Role(role) if role else Role.ADMIN
            )
        if as_json:
            made = {"id": token.token_id, "name": name, "role": token.role, "token": secret}
            typer.echo(json.dumps(made))
        else:
            typer.echo(secret)


@token_app.command("list")
def list_tokens(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the tokens, without their secrets."""
    with errors_told():
        from hpc_agent.control_plane.status import token_rows
        from hpc_agent.control_plane.store.tokens import Tokens

        with open_database(home) as database:
            rows = token_rows(Tokens(database).all())
        if as_json:
            typer.echo(json.dumps(rows))
        for row in () if as_json else rows:
            typer.echo("  ".join(str(value) for value in row.values()))


@token_app.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="Its id, from `token list`.")],
    home: HomeOption = None,
) -> None:
    """Revoke a token: it stops working within seconds."""
    with errors_told():
        from hpc_agent.control_plane.store.tokens import Tokens

        about = {"id": [token_id]}
        with audited(home, "token", "revoke", about), open_database(home) as database:
            if not Tokens(database).revoke(token_id):
                raise ConfigError(f"no valid token with id {token_id!r}: see `token list`")
        typer.echo(f"revoked {token_id}")


def _local_address(text: str | None) -> LocalAddress | None:
    from hpc_agent.metrics.address import LocalAddress

    try:
        return None if text is None else LocalAddress.parse(text)
    except ValueError as error:
        raise ConfigError(f"--metrics-listen: {error}") from None


def _print_addresses(addresses: Addresses, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        typer.echo(json.dumps(asdict(addresses)))
        return
    if addresses.ui:
        ways = {"token": "log in with a user token", "off": "NO LOGIN"}
        typer.echo(f"UI         {addresses.ui} ({ways.get(addresses.ui_auth or '', 'by proxy')})")
    typer.echo(f"agent API  {addresses.api}")
    if addresses.ca:
        typer.echo(f"CA         {addresses.ca}")
