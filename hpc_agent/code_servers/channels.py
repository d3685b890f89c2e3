"""Channels: the gRPC clients of code servers, and how many calls each is working on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hpc_agent.grpc.client import CodeServerClient


class Tunnels(Protocol):
    """What the relay offers to whoever calls code servers."""

    def tunnel_socket(self, key: str) -> Path:
        """Return the local socket that leads to a server."""

    def connected(self, key: str) -> bool:
        """Whether a server has dialled in."""

    async def forget(self, key: str) -> None:
        """Close what belongs to a server that is gone."""


class Channels:
    """One client for each server; its channel is opened at the first call."""

    def __init__(self, tunnels: Tunnels) -> None:
        self._tunnels = tunnels
        self._clients: dict[str, CodeServerClient] = {}
        self._calls: Counter[str] = Counter()

    def client(self, key: str) -> CodeServerClient:
        """Return the client of one server."""
        if key not in self._clients:
            self._clients[key] = CodeServerClient(self._tunnels.tunnel_socket(key))
        return self._clients[key]

    @contextmanager
    def lend(self, key: str) -> Iterator[CodeServerClient]:
        """Lend a client; as long as it is lent, the server is in use."""
        self._calls[key] += 1
        try:
            yield self.client(key)
        finally:
            self._calls[key] -= 1
            if not self._calls[key]:
                del self._calls[key]

    def in_use(self, key: str) -> bool:
        """Whether a call of this server is going on."""
        return key in self._calls

    async def drop(self, key: str) -> None:
        """Close the channel of a server that is gone."""
        await self._tunnels.forget(key)
        client = self._clients.pop(key, None)
        if client is not None:
            await client.close()

    async def close(self) -> None:
        """Close all channels; the servers live on."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
