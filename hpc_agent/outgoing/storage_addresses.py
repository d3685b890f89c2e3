"""To which addresses the control plane may send our uploads: its own, and storage that we know.

A pre-signed address is the control plane's word alone. Whoever speaks in its name could else have
the login node send requests to whatever it reaches, and read what is answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import httpx

from hpc_agent.errors import ControlPlaneRefusedError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_PORTS = {"https": 443, "http": 80}


class StorageAddresses:
    """The control plane's own address, and the hosts (``host``, ``host:port``) of its storage.

    ``*.`` at the beginning of a host stands for any labels, ``*`` elsewhere for a part of one.
    """

    def __init__(self, control_plane: str, hosts: Iterable[str]) -> None:
        self._own = _origin(httpx.URL(control_plane))
        self._patterns = [_pattern(host) for host in hosts]

    def checked(self, address: object) -> httpx.URL:
        """Return an address that may be used. Raises ControlPlaneRefusedError for any other."""
        try:
            # Read as it will be read when it is used: two readers may see two hosts.
            url = httpx.URL(str(address))
        except (httpx.InvalidURL, ValueError):  # ValueError: half of a surrogate pair
            raise ControlPlaneRefusedError(_refused("an address that cannot be read")) from None
        scheme, host, port = origin = _origin(url)
        if url.userinfo or not self._is_allowed(origin):
            raise ControlPlaneRefusedError(_refused(f"{scheme}://{host}:{port}"[:300]))
        return url

    def _is_allowed(self, origin: tuple[str, str, int]) -> bool:
        if origin == self._own:
            return True
        scheme, host, port = origin
        # Without encryption on this machine alone, and only if the control plane is there too.
        is_local = scheme == self._own[0] == "http" and host in LOOPBACK
        if scheme != "https" and not is_local:
            return False
        return any(pattern.fullmatch(f"{host}:{port}") for pattern in self._patterns)


def _pattern(text: str) -> re.Pattern[str]:
    host, _, port = text.lower().partition(":")
    labels = "(?:[^.:]+[.])+" if host.startswith("*.") else ""
    name = re.escape(host.removeprefix("*.")).replace(r"\*", "[^.:]*")
    return re.compile(f"{labels}{name}:{port or _PORTS['https']}")


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme, 0)


def _refused(where: str) -> str:
    return (
        f"the control plane wants an upload sent to {where}, which is neither its own address nor "
        "one of control_plane.storage_hosts: nothing was sent"
    )
