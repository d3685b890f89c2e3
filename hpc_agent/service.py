"""The agent as a systemd user service: render its unit, install it, remove it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import jinja2

from hpc_agent.errors import ConfigError, TemplateError
from hpc_agent.private_directories import own_directory

UNIT_NAME = "hpc-agent.service"
CREDENTIAL = "hpc-agent-token"
"""The name under which systemd hands the agent's token over (systemd.exec(5), LoadCredential=)."""
MARKER = "# Written by `hpc-agent service install`."

# What the agent needs of the installing shell: a user's service manager starts it with a bare
# environment, without the site's Slurm on PATH.
INHERITED_VARIABLES = (
    "PATH",
    "SLURM_CONF",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The values of the unit file.

    ``host`` None lets every machine that shares the home directory start the agent. Not
    ``limited`` is for the local scheduler, whose jobs would count against the agent's limits.
    ``token_credential`` is the file that systemd hands the agent its token from.
    """

    executable: Path
    config: Path
    host: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    limited: bool = True
    token_credential: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done, and the commands or advice that come next, in order."""

    path: Path
    changed: bool
    next_steps: tuple[str, ...]


def render_unit(unit: Unit) -> str:
    """Return the text of the unit file. Raises ConfigError for values that systemd cannot take."""
    _check(unit)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpc_agent", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - a unit file is not HTML; every value has its own filter
    )
    environment.filters |= {
        "word": quote_word,
        "argument": quote_argument,
        "rest_of_line": escape_rest_of_line,
    }
    try:
        return environment.get_template(f"{UNIT_NAME}.j2").render(
            marker=MARKER,
            executable=unit.executable,
            config=unit.config,
            host=unit.host,
            environment=unit.environment,
            limited=unit.limited,
            credential=CREDENTIAL,
            token_credential=unit.token_credential,
        )
    except jinja2.TemplateError as error:
        raise TemplateError(f"{UNIT_NAME}.j2: {error}") from error


def quote_word(text: object) -> str:
    """Quote one word the systemd way: C escapes, and ``%%`` so that no specifier is expanded.

    Source: systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers".
    """
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", escaped) + '"'


def quote_argument(text: object) -> str:
    """Quote an argument of ExecStart, where ``$`` would start a variable (systemd.service(5)).

    The program's own path is a plain word instead: systemd expands no variable there, and ``$$``
    would stay.
    """
    return quote_word(text).replace("$", "$$")


def escape_rest_of_line(text: object) -> str:
    """Double ``%``, so that no specifier is expanded; systemd knows no quotes in such a place.

    Source: config_parse_load_credential in systemd's load-fragment.c.
    """
    return str(text).replace("%", "%%")


def this_unit(
    config: Path,
    *,
    any_host: bool,
    limited: bool,
    token_credential: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Unit:
    """Return the unit for this installation, this host and this shell's environment.

    Raises ConfigError when the configuration file or the ``hpc-agent`` command cannot be found, or
    when a proxy variable holds a password.
    """
    config = config.expanduser().absolute()
    if not config.is_file():
        raise ConfigError(f"{config}: no such file; name the agent's configuration with --config")
    return Unit(
        executable=_find_executable(),
        config=config,
        host=None if any_host else socket.gethostname(),
        environment=_inherited(environ),
        limited=limited,
        token_credential=token_credential and token_credential.expanduser().absolute(),
    )


def unit_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the user's own units live (systemd.unit(5), "User Unit Search Path")."""
    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "systemd" / "user"


def install_unit(unit: Unit, directory: Path, *, force: bool = False) -> Outcome:
    """Write the unit file atomically and say what to do next.

    A unit that was not written by us is kept unless ``force``: ConfigError.
    """
    path = directory / UNIT_NAME
    text = render_unit(unit)
    present = _read(path)
    if present is not None and MARKER not in present and not force:
        raise ConfigError(
            f"{path} was not written by hpc-agent: move it away, or replace it with --force"
        )
    if present != text:
        _write_atomically(path, text)
    return Outcome(path=path, changed=present != text, next_steps=_steps_after_install(unit))


def uninstall_unit(directory: Path) -> Outcome:
    """Remove the unit file and the link that enables it; a running agent is left alone."""
    path = directory / UNIT_NAME
    present = _read(path)
    if present is not None and MARKER not in present:
        raise ConfigError(f"{path} was not written by hpc-agent: remove it by hand")
    try:
        path.unlink(missing_ok=True)
        (directory / "default.target.wants" / UNIT_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be removed: {error.strerror}") from error
    steps = (f"systemctl --user stop {UNIT_NAME}", "systemctl --user daemon-reload")
    return Outcome(path=path, changed=present is not None, next_steps=steps)


def _check(unit: Unit) -> None:
    credential = [unit.token_credential] if unit.token_credential else []
    for path in (unit.executable, unit.config, *credential):
        if not path.is_absolute():
            raise ConfigError(f"{path}: systemd needs an absolute path")
        # Surrogates stand for bytes that are not UTF-8, the only encoding of unit files.
        if re.search(r"[\x00\ud800-\udfff]", str(path)):
            raise ConfigError(f"{str(path)!r}: systemd takes only paths that are valid UTF-8")
    # systemd does not start such a program, however it is quoted ("special characters").
    if re.search(r"[\x00-\x1f\x7f\"'\\]", str(unit.executable)):
        raise ConfigError(
            f"{str(unit.executable)!r}: systemd starts no program with quotes, backslashes or "
            "control characters in its path; move the environment, or make a link to it"
        )
    if unit.token_credential is not None and re.search(
        r"[\x00-\x1f\x7f\\]|\s$", str(unit.token_credential)
    ):
        raise ConfigError(
            f"{str(unit.token_credential)!r}: systemd takes no credential from a path with "
            "backslashes or control characters, or with a blank at its end"
        )
    if unit.host is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", unit.host):
        raise ConfigError(f"host name {unit.host!r} cannot go into a unit; use --any-host")
    for name in unit.environment:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"{name!r} is not a name for an environment variable")


def _find_executable() -> Path:
    beside = Path(sys.executable).with_name("hpc-agent")
    if beside.is_file():
        return beside
    found = shutil.which("hpc-agent")
    if found is None:
        raise ConfigError(
            f"the hpc-agent command is neither beside {sys.executable} nor on PATH; "
            "install dagster-hpc-agent into an environment and run it from there"
        )
    return Path(found).absolute()


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    chosen = {name: environ[name] for name in INHERITED_VARIABLES if environ.get(name)}
    for name, text in chosen.items():
        if name.lower() == "https_proxy" and urlsplit(text).password:
            raise ConfigError(
                f"{name} holds a password, and a unit file is no place for one: put the line "
                f"{name}=… into ~/.config/hpc-agent/environment (mode 0600), unset it here and "
                "install again"
            )
    return chosen


def _steps_after_install(unit: Unit) -> tuple[str, ...]:
    if not Path("/run/systemd/system").is_dir():
        return (
            "This machine does not run systemd, so nothing will start the unit here. Have the "
            f"site's own supervisor run: {unit.executable} start --config {unit.config}",
        )
    return (
        "systemctl --user daemon-reload",
        f"systemctl --user enable --now {UNIT_NAME}",
        # Without it systemd ends the agent when the user's last login does.
        "loginctl enable-linger",
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _write_atomically(path: Path, text: str) -> None:
    try:
        own_directory(path.parent)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{UNIT_NAME}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
