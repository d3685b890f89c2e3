"""Runs commands on a machine of the cluster, over one SSH connection (paramiko, the extra ``ssh``).

The connection is made at the first command and again when it is lost. Every command is a channel of
its own, under ``timeout`` on the other side: what is over its deadline ends there as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_agent.errors import ConfigError
from hpc_agent.slurm.commands import CommandResult

if TYPE_CHECKING:
    import paramiko

NOT_CONNECTED = 255
"""The return code of a command that was never sent, as ssh(1) has it."""
_HUNG_UP = -1  # as if by SIGHUP: the command was sent, and its end is not known
_CONNECT_SECONDS = 20.0
_KEEPALIVE_SECONDS = 30
_MARGIN_SECONDS = 5.0
_WAITS = (1.0, 2.0, 5.0, 15.0, 30.0)
_TIMED_OUT = {124, 137}  # timeout(1): by SIGTERM, by SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """The machine: a host or an alias of ~/.ssh/config, which fills in what is not given here.

    ``path`` is put before the PATH of commands there, ``environment`` added to theirs. Host keys
    are looked up in ``known_hosts`` and the user's own file, and an unknown one is refused.
    """

    host: str
    user: str | None = None
    port: int | None = None
    key_file: Path | None = None
    known_hosts: Path | None = None
    jump_host: str | None = None
    may_jump: bool = True
    path: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    config_file: Path = Path("~/.ssh/config")


class SshRunner:
    """A command runner on the other side of an SSH connection."""

    def __init__(self, target: SshTarget, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._clock = clock
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._problem = ""

    async def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str], timeout_seconds: float
    ) -> CommandResult:
        """Run to the end or to the deadline; see CommandRunner.run.

        255: nothing was sent. A connection that is lost in between ends the command by signal 1.
        """
        return await asyncio.to_thread(self._run, list(argv), dict(environment), timeout_seconds)

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(
        self, argv: list[str], environment: dict[str, str], timeout_seconds: float
    ) -> CommandResult:
        import paramiko

        def result(returncode: int | None, stdout: str = "", stderr: str = "") -> CommandResult:
            return CommandResult(
                argv=tuple(argv),
                returncode=returncode,
                stdout=stdout,
                stderr=stderr,
                timeout_seconds=timeout_seconds,
            )

        try:
            channel = self._open_channel()
        except (paramiko.SSHException, OSError) as error:
            self.close()
            return result(NOT_CONNECTED, stderr=self._words(error))
        with contextlib.closing(channel):
            try:
                channel.exec_command(self._command_line(argv, environment, timeout_seconds))
                stdout, stderr, code = _finish(channel, timeout_seconds + _MARGIN_SECONDS)
            except TimeoutError:
                return result(None)
            except (paramiko.SSHException, OSError, EOFError) as error:
                self.close()
                return result(_HUNG_UP, stderr=f"the connection was lost: {error}")
        if code == -1:
            self.close()
            return result(_HUNG_UP, stdout, stderr or "the connection was lost")
        return result(None if code in _TIMED_OUT else code, stdout, stderr)

    def _command_line(
        self, argv: list[str], environment: dict[str, str], timeout_seconds: float
    ) -> str:
        words = ["timeout", "--kill-after=2", f"{timeout_seconds:g}", "env"]
        merged = {**self._target.environment, **environment}
        assignments = [f"{name}={value}" for name, value in merged.items()]
        line = shlex.join([*words, *assignments, *argv])
        path = self._target.path
        return line if path is None else f"PATH={shlex.quote(path)}:$PATH {line}"

    def _open_channel(self) -> paramiko.Channel:
        with self._lock:
            if self._connection is None or not self._connection.lives:
                self._connection = self._connect()
            connection = self._connection
        return connection.transport.open_session(timeout=_CONNECT_SECONDS)

    def _connect(self) -> Connection:
        """Connect, but not at once again after a failure: the next waiter gets the same words."""
        import paramiko

        if self._clock() < self._not_before:
            raise OSError(self._problem)
        try:
            connection = connect(self._target)
        except (paramiko.SSHException, OSError, ConfigError) as error:
            wait = _WAITS[min(self._failures, len(_WAITS) - 1)]
            self._failures += 1
            self._not_before = self._clock() + wait
            self._problem = self._words(error)
            raise OSError(self._problem) from error
        self._failures = 0
        return connection

    def _words(self, error: Exception) -> str:
        words = str(error) or type(error).__name__
        prefix = f"Unable to connect to {self._target.host} by ssh: "
        return words if words.startswith(prefix) else f"{prefix}{words}"


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection, and the one to the jump host that it goes through."""

    client: paramiko.SSHClient
    through: Connection | None

    @property
    def transport(self) -> paramiko.Transport:
        """What channels are opened on. Raises OSError when it is closed."""
        transport = self.client.get_transport()
        if transport is None:
            raise OSError("the connection was closed")
        return transport

    @property
    def lives(self) -> bool:
        """Whether the other side answered the last sign of life."""
        transport = self.client.get_transport()
        return transport is not None and transport.is_active()

    def close(self) -> None:
        """Close both."""
        _close(self.client, self.through)


def connect(target: SshTarget) -> Connection:
    """Open a connection. Raises paramiko's and the system's errors, ConfigError for a host key."""
    import paramiko

    settings = _settings(target, target.host)
    through = connect(_jump(target, str(settings["jump"]))) if settings["jump"] else None
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_refuse_unknown())
    client.load_system_host_keys()
    if target.known_hosts is not None:
        client.load_host_keys(str(target.known_hosts))
    try:
        client.connect(
            settings["hostname"],
            port=settings["port"],
            username=settings["user"],
            key_filename=settings["key_files"],
            sock=None if through is None else _channel(through, settings),
            timeout=_CONNECT_SECONDS,
            banner_timeout=_CONNECT_SECONDS,
            auth_timeout=_CONNECT_SECONDS,
        )
    except paramiko.BadHostKeyException as error:
        _close(client, through)
        raise ConfigError(
            f"the host key of {target.host} is not the one in known_hosts "
            f"(it is now {error.key.fingerprint}). Find out why before you replace it"
        ) from error
    except paramiko.AuthenticationException as error:
        _close(client, through)
        raise ConfigError(
            f"{settings['user']} may not log in to {target.host} with the keys that were tried; "
            "set scheduler.ssh.key_file, or add the key to an ssh agent"
        ) from error
    except BaseException:
        _close(client, through)
        raise
    connection = Connection(client, through)
    connection.transport.set_keepalive(_KEEPALIVE_SECONDS)
    return connection


def _close(client: paramiko.SSHClient, through: Connection | None) -> None:
    client.close()
    if through is not None:
        through.close()


def _settings(target: SshTarget, host: str) -> dict[str, Any]:
    """Return what ~/.ssh/config and the target say of a host, the target's own words first."""
    import paramiko

    found: Mapping[str, Any] = {}
    path = target.config_file.expanduser()
    if path.is_file():
        found = paramiko.SSHConfig.from_path(str(path)).lookup(host)
    is_target = host == target.host
    key_files = [str(target.key_file.expanduser())] if target.key_file else []
    return {
        "hostname": found.get("hostname", host),
        "port": (target.port if is_target else None) or int(found.get("port", 22)),
        "user": target.user or found.get("user") or os.environ.get("USER") or "root",
        "key_files": key_files or found.get("identityfile"),
        "jump": _one_jump(target, target.jump_host or found.get("proxyjump")),
    }


def _one_jump(target: SshTarget, jump: str | None) -> str | None:
    """Return the jump host to go through; a jump host itself is reached without one."""
    if not target.may_jump or jump is None or jump.lower() == "none":
        return None
    if "," in jump:
        raise ConfigError(f"scheduler.ssh: one jump host is supported, not a chain ({jump})")
    return jump


def _jump(target: SshTarget, jump: str) -> SshTarget:
    """Return the jump host of ``[USER@]HOST[:PORT]`` as a target of its own."""
    user, _, host = jump.rpartition("@")
    name, _, port = host.partition(":")
    return replace(
        target,
        host=name,
        user=user or target.user,
        port=int(port) if port else None,
        jump_host=None,
        may_jump=False,
    )


def _channel(through: Connection, settings: Mapping[str, Any]) -> paramiko.Channel:
    destination = (settings["hostname"], settings["port"])
    return through.transport.open_channel("direct-tcpip", destination, ("127.0.0.1", 0))


def _refuse_unknown() -> Any:
    import paramiko

    class Refuse(paramiko.MissingHostKeyPolicy):
        """Say how to get to know a host, after its key was compared with what its admin says."""

        def missing_host_key(
            self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
        ) -> None:
            raise ConfigError(
                f"the host key of {hostname} is not known ({key.get_name()} {key.fingerprint}). "
                "Compare it with what the cluster's administrators say, then add it: "
                "`ssh-keyscan HOST >> ~/.ssh/known_hosts`, or name a file in "
                "scheduler.ssh.known_hosts"
            )

    return Refuse()


def _finish(channel: paramiko.Channel, seconds: float) -> tuple[str, str, int]:
    """Read both streams to their ends. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    errors = bytearray()
    reading = threading.Thread(
        target=_drain, args=(channel.recv_stderr, errors, deadline, channel), daemon=True
    )
    reading.start()
    output = bytearray()
    _drain(channel.recv, output, deadline, channel)
    reading.join(max(deadline - time.monotonic(), 0.0))
    # recv_exit_status() alone would wait for ever for what has closed its streams and lives on.
    if not channel.status_event.wait(max(deadline - time.monotonic(), 0.0)):
        raise TimeoutError
    code = channel.recv_exit_status()
    return output.decode(errors="replace"), errors.decode(errors="replace"), code


def _drain(
    read: Callable[[int], bytes], target: bytearray, deadline: float, channel: paramiko.Channel
) -> None:
    while (left := deadline - time.monotonic()) > 0:
        channel.settimeout(left)
        try:
            chunk = read(65536)
        except TimeoutError:
            return
        if not chunk:
            return
        target += chunk
