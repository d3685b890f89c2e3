"""``hpc-agent control-plane init``."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_agent.cli.gateway_database import HomeOption, JsonOption, audited, errors_told

if TYPE_CHECKING:
    from hpc_agent.control_plane.initial import Initial
    from hpc_agent.control_plane.listening import Listening


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(init)


def init(
    *,
    home: HomeOption = None,
    name: Annotated[
        str | None,
        typer.Option(help="By what name login nodes reach this machine. [default: its own]"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on for agents. [default: all]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port for agents. [default: 8443]")] = None,
    webserver_host: Annotated[
        str | None, typer.Option(help="Address of the web UI. [default: 127.0.0.1]")
    ] = None,
    webserver_port: Annotated[
        int | None, typer.Option(help="Port of the web UI. [default: 3000]")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Who logs in to the web UI. [default: you]")
    ] = None,
    agent: Annotated[str, typer.Option(help="What you will know the first agent by.")] = "agent",
    new_tokens: Annotated[
        bool, typer.Option("--new-tokens", help="Make tokens although there are some.")
    ] = False,
    non_interactive: Annotated[
        bool, typer.Option("--non-interactive", help="Ask nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Set up a control plane, and print what is to be pasted on the login node.

    A second call changes what its options name, and nothing else. Tokens are shown once.
    """
    with errors_told():
        from hpc_agent.account import Account
        from hpc_agent.control_plane.home import resolve_home
        from hpc_agent.control_plane.initial import WILDCARD, Names, initialize
        from hpc_agent.control_plane.listening import Listening, read_listening

        resolved = resolve_home(home)
        is_first = not resolved.listen_yaml.exists()
        if is_first:
            present = Listening(name=_own_name(), host=WILDCARD)
        else:
            present = read_listening(resolved.listen_yaml)
        listening = present.with_options(
            name=name, host=host, port=port,
            webserver_host=webserver_host, webserver_port=webserver_port,
        )  # fmt: skip
        if is_first and not non_interactive and not as_json and sys.stdin.isatty():
            listening = _asked(listening)
        names = Names(user=user or Account.here().name, agent=agent)
        with audited(home, "token", "init", {"name": [names.user, names.agent]}):
            made = initialize(resolved, listening, names, new_tokens=new_tokens)
        typer.echo(json.dumps(_as_json(made)) if as_json else _told(made))


def _own_name() -> str:
    """Return this machine's name; /etc/hosts may call it localhost."""
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name


def _asked(suggested: Listening) -> Listening:
    return suggested.with_options(
        name=typer.prompt("Name by which login nodes reach this machine", suggested.name),
        port=typer.prompt("Port for agents", suggested.port, type=int),
        webserver_port=typer.prompt("Port of the web UI", suggested.webserver_port, type=int),
    )


def _told(made: Initial) -> str:
    from hpc_agent.control_plane.initial import lines_for_login_node

    port = made.listening.webserver_port
    changes = [f"  {each}" for each in made.changes] or ["  nothing: all of it was there"]
    logs_in = made.user_token or (
        f"the token of {made.names.user}, shown when it was made; `--new-tokens` makes others"
    )
    agent_token = "" if made.agent_token else " (its token was shown when it was made)"
    return "\n".join(
        [
            f"Home       {made.home}",
            "Made",
            *changes,
            "",
            "1. Start it, here:",
            f"     hpc-agent control-plane start --home {made.home}",
            f"   or have it kept running: hpc-agent service install --control-plane {made.home}",
            "",
            f"2. The web UI is {made.ui}. From elsewhere: ssh -L {port}:127.0.0.1:{port} "
            f"{made.listening.name or made.listening.host}",
            f"   Log in with: {logs_in}",
            "",
            f"3. Paste this on the login node{agent_token}:",
            "",
            lines_for_login_node(made),
        ]
    )


def _as_json(made: Initial) -> dict[str, object]:
    from hpc_agent.control_plane.initial import lines_for_login_node

    return {
        "home": str(made.home),
        "api": made.api,
        "ui": made.ui,
        "ca": made.authority,
        "user": made.names.user,
        "user_token": made.user_token,
        "agent": made.names.agent,
        "agent_token": made.agent_token,
        "changes": list(made.changes),
        "paste": lines_for_login_node(made),
    }
