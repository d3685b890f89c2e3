"""What comes to one port: good requests, bad ones, and connections that say little or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

_BODY = b'{"query": "' + b"x" * 20_000 + b'"}'


@dataclass(slots=True)
class Door:
    """A port, who is let in, and how requests ended."""

    name: str
    port: int
    token: str
    good: Mapping[str, Any]
    trust: ssl.SSLContext | None
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"{'https' if self.trust else 'http'}://127.0.0.1:{self.port}"

    async def warm_up(self) -> None:
        """Ask so many at once that pools of threads are as large as they get."""
        async with self._client() as client:
            for _ in range(3):
                await asyncio.gather(*(self._status(client, json=self.good) for _ in range(60)))

    async def attack(self, *, size: int, seconds: float) -> None:
        """Let all of them come at once, ``size`` of each; good requests in between."""
        held = [self._says(b"") for _ in range(size)]
        held += [self._says(b"POST /graphql HTTP/1.1\r\nX: ") for _ in range(size // 4)]
        held += [self._drips(seconds) for _ in range(size // 8)]
        await asyncio.gather(
            _for(seconds, held),
            self._asks(size, kept=True),
            self._asks(size // 4, kept=False),
            *(self._is_refused() for _ in range(size // 4)),
        )

    async def _asks(self, number: int, *, kept: bool) -> None:
        """Ask one after the other, over one connection or over one each."""
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(self._client())
            for _ in range(number):
                if not kept:
                    client = await stack.enter_async_context(self._client())
                await self._ask(client)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        status = await self._status(client, json=self.good)
        self.outcomes[f"good: {status}"] += 1

    async def _is_refused(self) -> None:
        async with self._client() as client:
            wrong = {"Dagster-Cloud-Api-Token": "wrong"}
            status = await self._status(client, content=_BODY, headers=wrong)
        self.outcomes[f"bad: {status}"] += 1

    async def _status(self, client: httpx.AsyncClient, **request: Any) -> int | None:
        """Ask, and again when the connection does not come about, as jobs do."""
        for _ in range(30):
            try:
                return (await client.post("/graphql", **request)).status_code
            except httpx.TransportError:
                self.outcomes["tried again"] += 1
                await asyncio.sleep(0.2)
        return None

    async def _says(self, said: bytes) -> None:
        """Connect, say something without TLS, and wait to be put out."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(said)
            with contextlib.suppress(OSError):
                await reader.read()
        finally:
            writer.transport.abort()

    async def _drips(self, seconds: float) -> None:
        """Send a request whose body never comes to its end."""
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust)
            try:
                writer.write(
                    b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 99999\r\n"
                    b"Dagster-Cloud-Api-Token: %s\r\n\r\n" % (self.port, self.token.encode())
                )
                for _ in range(int(seconds * 10)):
                    writer.write(b"x")
                    await asyncio.sleep(0.1)
            finally:
                writer.transport.abort()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            verify=self.trust or False,
            headers={"Dagster-Cloud-Api-Token": self.token},
            trust_env=False,
            timeout=30,
        )


async def _for(seconds: float, coming: list[Any]) -> None:
    """Let connections be for a while."""
    tasks = [asyncio.ensure_future(each) for each in coming]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
