"""A control plane's set-up: home, name, certificate and tokens; a second one keeps them all."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.listening import Listening, read_listening, write_listening
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.tokens import TokenKind, Tokens
from hpc_agent.control_plane.tls import generated_certificate

WILDCARD = "0.0.0.0"  # noqa: S104 - every call needs a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Whom the first tokens are for: who logs in to the UI, and the first agent."""

    user: str
    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Initial:
    """A control plane that can be started; a token is None when there was one of its name.

    ``changes`` is what was made or changed, in words; empty for a second call.
    """

    home: Path
    listening: Listening
    names: Names
    authority: str
    user_token: str | None
    agent_token: str | None
    changes: Sequence[str]

    @property
    def api(self) -> str:
        """Where agents reach it."""
        name = self.listening.name or self.listening.host
        return f"https://{f'[{name}]' if ':' in name else name}:{self.listening.port}"

    @property
    def ui(self) -> str:
        """Where the web UI is, seen from this machine."""
        host = self.listening.webserver_host
        return f"https://{f'[{host}]' if ':' in host else host}:{self.listening.webserver_port}"


def initialize(home: Home, listening: Listening, names: Names, *, new_tokens: bool) -> Initial:
    """Make what is missing in a home that ``resolve_home`` has prepared.

    ``listening`` replaces what the home has when it differs. Tokens that there are stay valid.
    """
    changes = []
    if not home.listen_yaml.exists() or read_listening(home.listen_yaml) != listening:
        write_listening(home.listen_yaml, listening)
        changes.append(f"{home.listen_yaml}: where it listens")
    before = _content(home.tls / "server.pem")
    tls = generated_certificate(home.tls, *_hosts(listening))
    if _content(tls.certificate) != before:
        changes.append(f"{tls.certificate}: certificate for {listening.name or listening.host}")
    with contextlib.closing(Database(home.database_url)) as database:
        tokens = Tokens(database)
        user = _token(tokens, names.user, TokenKind.USER, anew=new_tokens)
        agent = _token(tokens, names.agent, TokenKind.AGENT, anew=new_tokens)
    changes += [f"token of user {names.user}, an admin"] if user else []
    changes += [f"token of agent {names.agent}"] if agent else []
    return Initial(
        home=home.root,
        listening=listening,
        names=names,
        authority=_content(home.tls / "ca.pem"),
        user_token=user,
        agent_token=agent,
        changes=changes,
    )


def lines_for_login_node(initial: Initial) -> str:
    """Return what is pasted into a shell on the login node: certificate, token, `hpc-agent init`.

    The token is in no command line, and in files of mode 0600 alone.
    """
    directory = "~/.config/hpc-agent"
    lines = [
        " (umask 077",  # a shell may keep lines that begin with a blank out of its history
        f"mkdir -p {directory}",
        *_file(f"{directory}/ca.pem", initial.authority.rstrip("\n")),
    ]
    if initial.agent_token is not None:
        lines += _file(f"{directory}/token", initial.agent_token)
    return "\n".join(
        [
            *lines,
            ")",
            f"hpc-agent init --url {shlex.quote(initial.api)} "
            f"--ca-bundle {directory}/ca.pem --token-file {directory}/token",
        ]
    )


def _file(path: str, content: str) -> list[str]:
    return [f"cat >{path} <<'END'", content, "END"]


def _token(tokens: Tokens, name: str, kind: TokenKind, *, anew: bool) -> str | None:
    """Return a new token, None when there is a valid one of this name already."""
    known = any(
        each.name == name and each.kind is kind and each.revoked_at is None for each in tokens.all()
    )
    return None if known and not anew else tokens.create(name, kind)[1]


def _hosts(listening: Listening) -> list[str]:
    return [each for each in (listening.name, listening.host, listening.webserver_host) if each]


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
