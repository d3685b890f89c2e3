"""What code servers need of the relay: a local socket to each, and whether it is connected."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Tunnels(Protocol):
    """Reverse tunnels, dialled by the node programs of code servers."""

    def tunnel_socket(self, key: str) -> Path:
        """Return the local unix socket that leads to a code server."""

    def connected(self, key: str) -> bool:
        """Whether the node program of this code server is connected."""
