"""systemd units of agent and control plane: a user's own, or an administrator's with a sandbox."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.account import Account
from hpc_agent.errors import ConfigError
from hpc_agent.service.outcome import Outcome
from hpc_agent.service.owned_file import MARKER, put, take_away
from hpc_agent.service.program import Kind, Program
from hpc_agent.service.rendering import render

CREDENTIAL = "hpc-agent-token"
"""The name under which systemd hands the agent's token over (systemd.exec(5), LoadCredential=)."""

SYSTEM_DIRECTORY = Path("etc/systemd/system")
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_LINGER = Path("/var/lib/systemd/linger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The values of a unit file.

    ``host`` None lets every machine that shares the home directory start the agent. Not
    ``limited`` is for the local scheduler, whose jobs would count against the agent's limits.
    ``token_credential`` is the file that systemd hands the agent its token from. ``account`` makes
    it a system unit, which runs as this user and may write to the program's directories alone.
    """

    program: Program
    host: str | None = None
    limited: bool = True
    token_credential: Path | None = None
    account: str | None = None

    @property
    def kind(self) -> Kind:
        """Which of the two programs it is of."""
        return self.program.kind


def render_unit(unit: Unit) -> str:
    """Return the text of the unit file. Raises ConfigError for values that systemd cannot take."""
    _check(unit)
    program = unit.program
    return render(
        "hpc-agent.service.j2",
        marker=MARKER,
        kind=unit.kind.name,
        title=unit.kind.title,
        unit_name=unit.kind.unit_name,
        executable=program.executable,
        arguments=program.arguments,
        environment=program.environment,
        writes=program.writes,
        hides_homes=not any(_is_in_a_home(path) for path in _paths(unit)),
        host=unit.host,
        limited=unit.limited and unit.kind is Kind.AGENT,
        account=unit.account,
        credential=CREDENTIAL,
        token_credential=unit.token_credential,
    )


def unit_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the user's own units live (systemd.unit(5), "User Unit Search Path")."""
    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "systemd" / "user"


def install_unit(unit: Unit, directory: Path, *, force: bool = False) -> Outcome:
    """Write the unit file and say what to do next. Raises ConfigError."""
    path = directory / unit.kind.unit_name
    changed = put(path, render_unit(unit), force=force)
    return Outcome(path=path, changed=changed, next_steps=_steps_after_install(unit))


def uninstall_unit(directory: Path, kind: Kind = Kind.AGENT, *, system: bool = False) -> Outcome:
    """Remove the unit file and the link that enables it; a running program is left alone."""
    path = directory / kind.unit_name
    wants = "multi-user.target.wants" if system else "default.target.wants"
    changed = take_away(path, directory / wants / kind.unit_name)
    manage = "systemctl" if system else "systemctl --user"
    steps = (f"{manage} stop {kind.unit_name}", f"{manage} daemon-reload")
    return Outcome(path=path, changed=changed, next_steps=steps if changed else ())


def _paths(unit: Unit) -> list[Path]:
    """Return what the program has to see: itself, what its arguments name, what it fills."""
    named = [Path(each) for each in unit.program.arguments if each.startswith("/")]
    python = [unit.program.python] if unit.program.python else []
    return [unit.program.executable, *python, *named, *unit.program.writes]


def _is_in_a_home(path: Path) -> bool:
    return any(path.is_relative_to(home) for home in _HOMES)


def _check(unit: Unit) -> None:
    executable = unit.program.executable
    credential = [unit.token_credential] if unit.token_credential else []
    for path in (executable, *unit.program.writes, *credential):
        if not path.is_absolute():
            raise ConfigError(f"{path}: systemd needs an absolute path")
    for text in (executable, *unit.program.arguments, *unit.program.writes, *credential):
        # Surrogates stand for bytes that are not UTF-8, the only encoding of unit files.
        if re.search(r"[\x00\ud800-\udfff]", str(text)):
            raise ConfigError(f"{str(text)!r}: systemd takes only paths that are valid UTF-8")
    # systemd does not start such a program, however it is quoted ("special characters").
    if re.search(r"[\x00-\x1f\x7f\"'\\]", str(executable)):
        raise ConfigError(
            f"{str(executable)!r}: systemd starts no program with quotes, backslashes or "
            "control characters in its path; move the environment, or make a link to it"
        )
    if unit.token_credential is not None and re.search(
        r"[\x00-\x1f\x7f\\]|\s$", str(unit.token_credential)
    ):
        raise ConfigError(
            f"{str(unit.token_credential)!r}: systemd takes no credential from a path with "
            "backslashes or control characters, or with a blank at its end"
        )
    _check_names(unit)


def _check_names(unit: Unit) -> None:
    if unit.host is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", unit.host):
        raise ConfigError(f"host name {unit.host!r} cannot go into a unit; use --any-host")
    if unit.account is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", unit.account):
        raise ConfigError(f"--as: {unit.account!r} is no name of a user that systemd takes")
    for name in unit.program.environment:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"{name!r} is not a name for an environment variable")


def _missing(unit: Unit) -> list[str]:
    """Return the directories, quoted, that the program could not make from within its sandbox."""
    writes = unit.program.writes
    outermost = [path for path in writes if not any(each in path.parents for each in writes)]
    return [shlex.quote(str(path)) for path in outermost if not path.exists()]


def _steps_after_install(unit: Unit) -> tuple[str, ...]:
    if unit.account is not None:
        return (
            *(f"install -d -m 0700 -o {unit.account} {each}" for each in _missing(unit)),
            "systemctl daemon-reload",
            f"systemctl enable --now {unit.kind.unit_name}",
        )
    if not Path("/run/systemd/system").is_dir():
        command = " ".join(unit.program.argv)
        return (
            "This machine does not run systemd, so nothing will start the unit here: take "
            f"--crontab, or have the site's own supervisor run: {command}",
        )
    # Without lingering systemd ends user services when the user's last login does.
    lingers = (_LINGER / Account.here().name).exists()
    return (
        "systemctl --user daemon-reload",
        f"systemctl --user enable --now {unit.kind.unit_name}",
        "(user services of yours go on after logout: lingering is on)"
        if lingers
        else "loginctl enable-linger   # else it ends with your last logout; some sites reserve "
        "this to administrators: loginctl enable-linger " + Account.here().name,
    )
