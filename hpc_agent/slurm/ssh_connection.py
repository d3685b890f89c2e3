"""One SSH connection to a machine of the cluster: which host, which keys, through which jump host.

paramiko (the extra ``ssh``) is imported when a connection is opened. What ~/.ssh/config says holds
where agent.yaml says nothing (ssh_config(5)).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_agent.errors import ConfigError

if TYPE_CHECKING:
    import paramiko

CONNECT_SECONDS = 20.0
_KEEPALIVE_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """The machine: a host or an alias of ~/.ssh/config, which fills in what is not given here.

    ``path`` is put before the PATH of commands there, ``environment`` added to theirs. Host keys
    are looked up in ``known_hosts`` and the user's own file, and an unknown one is refused.
    ``may_jump`` False: not through a jump host, whatever is configured.
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
        """Whether the connection is not known to be lost.

        The signs of life that are sent (``Transport.set_keepalive``) want no answer: another side
        that is gone shows when TCP gives up, or when a channel does not open in time.
        """
        transport = self.client.get_transport()
        return transport is not None and transport.is_active()

    def close(self) -> None:
        """Close both."""
        _close(self.client, self.through)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How a target is reached, with all that is configured taken together."""

    hostname: str
    port: int
    user: str
    key_files: list[str] | None
    jump: SshTarget | None


def connect(target: SshTarget) -> Connection:
    """Open a connection. Raises paramiko's and the system's errors, ConfigError for a key."""
    import paramiko

    way = _way(target)
    through = connect(way.jump) if way.jump is not None else None
    client = paramiko.SSHClient()
    try:
        _open(client, target, way, through)
        connection = Connection(client, through)
        connection.transport.set_keepalive(_KEEPALIVE_SECONDS)
        _send_at_once(connection.transport)
    except paramiko.BadHostKeyException as error:
        _close(client, through)
        raise ConfigError(
            f"the host key of {target.host} is not the one in known_hosts "
            f"(it is now {error.key.fingerprint}). Find out why before you replace it"
        ) from error
    except paramiko.AuthenticationException as error:
        _close(client, through)
        raise ConfigError(
            f"{way.user} may not log in to {target.host} with the keys that were tried; "
            "set scheduler.ssh.key_file, or add the key to an ssh agent"
        ) from error
    except BaseException:
        _close(client, through)
        raise
    return connection


def _open(
    client: paramiko.SSHClient, target: SshTarget, way: _Way, through: Connection | None
) -> None:
    client.set_missing_host_key_policy(_refuse_unknown())
    client.load_system_host_keys()
    if target.known_hosts is not None:
        client.load_host_keys(str(target.known_hosts.expanduser()))
    channel = None
    if through is not None:
        channel = through.transport.open_channel(
            "direct-tcpip",
            (way.hostname, way.port),
            ("127.0.0.1", 0),
            timeout=CONNECT_SECONDS,  # paramiko's own is an hour
        )
    client.connect(
        way.hostname,
        port=way.port,
        username=way.user,
        key_filename=way.key_files,  # type: ignore[arg-type]  # a list will do, the stubs lag
        sock=channel,
        timeout=CONNECT_SECONDS,
        banner_timeout=CONNECT_SECONDS,
        auth_timeout=CONNECT_SECONDS,
    )


def _send_at_once(transport: paramiko.Transport) -> None:
    """Let no small message wait for the acknowledgement of the last one (tcp(7), TCP_NODELAY)."""
    if isinstance(transport.sock, socket.socket):  # through a jump host it is a channel
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _close(client: paramiko.SSHClient, through: Connection | None) -> None:
    client.close()
    if through is not None:
        through.close()


def _way(target: SshTarget) -> _Way:
    import paramiko

    found: Mapping[str, Any] = {}
    path = target.config_file.expanduser()
    if path.is_file():
        found = paramiko.SSHConfig.from_path(str(path)).lookup(target.host)
    return _Way(
        hostname=found.get("hostname", target.host),
        port=target.port or int(found.get("port", 22)),
        user=target.user or found.get("user") or os.environ.get("USER") or "root",
        key_files=_key_files(target, found.get("identityfile", [])),
        jump=_jump(target, target.jump_host or found.get("proxyjump")),
    )


def _key_files(target: SshTarget, found: Sequence[str]) -> list[str] | None:
    """Return the keys to try, None for what paramiko finds: those of an agent, the usual files.

    Of ~/.ssh/config a file that is not there is passed over, as by ssh(1); paramiko ends with it.
    """
    if target.key_file is None:
        return [each for each in found if _is_readable(Path(each))] or None
    path = target.key_file.expanduser()
    if not _is_readable(path):
        raise ConfigError(f"scheduler.ssh.key_file: {path} is no file that can be read")
    return [str(path)]


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _jump(target: SshTarget, jump: str | None) -> SshTarget | None:
    """Return the jump host of ``[USER@]HOST[:PORT]``, which itself is reached without one."""
    if not target.may_jump or jump is None or jump.lower() == "none":
        return None
    if "," in jump:
        raise ConfigError(f"scheduler.ssh: one jump host is supported, not a chain ({jump})")
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
