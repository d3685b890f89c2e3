"""Where metrics are read: on this machine, and nowhere else."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hpc_agent.errors import ConfigError

_UNIX = "unix:"
_FORM = "write unix:/PATH, or 127.0.0.1:PORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAddress:
    """A unix socket, or a port of the loopback interface; port 0 picks a free one."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``unix:/run/x.sock``, ``127.0.0.1:9187`` or ``[::1]:9187``. Raises ValueError."""
        if text.startswith(_UNIX):
            path = Path(text.removeprefix(_UNIX))
            if not path.is_absolute():
                raise ValueError(f"{text!r}: the path must be absolute")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text!r} is no address: {_FORM}")
        host = host.removeprefix("[").removesuffix("]")
        if not _is_loopback(host):
            raise ValueError(
                f"{text!r}: metrics are read without a password, so only on this machine: {_FORM}"
            )
        return cls(host=host, port=int(port))

    def bind(self) -> socket.socket:
        """Return a listener. Raises ConfigError when the address is taken."""
        from hpc_agent.inbound.sockets import bind_port, bind_unix

        if self.path is not None:
            return bind_unix(self.path)
        try:
            return bind_port(self.host, self.port)
        except OSError as error:
            raise ConfigError(
                f"cannot show metrics on {self.host}:{self.port}: {error.strerror}"
            ) from error


def _is_loopback(host: str) -> bool:
    """A name would be whatever somebody's resolver says it is."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
