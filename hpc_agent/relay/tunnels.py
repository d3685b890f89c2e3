"""Reverse tunnels: a local unix socket per code server, spliced onto connections it has parked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_agent.errors import ConfigError, HpcAgentError
from hpc_agent.relay.identity import JobDirectory
from hpc_agent.relay.parked import Parked, splice
from hpc_agent.seldom import seldom

log = logging.getLogger(__name__)
refusals = seldom(f"{__name__}.refusals")

TUNNEL = "hpc-tunnel/1"

_HELLO_SECONDS = 10.0
_HELLO_BYTES = 4096
_MAX_PARKED = 64
_SOCKET_PATH_MAX = 107  # sun_path, unix(7)
# Some generations of one job at most: one per requeue. Older ones are long gone.
_MAX_RETIRED = 100


class _RefusedError(Exception):
    """The connection is not parked; the message goes to the node program."""


@dataclass(slots=True)
class _Endpoint:
    """What the relay holds of one code server."""

    socket: Path
    generation: str = ""
    retired: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_RETIRED))
    parked: deque[Parked] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    server: asyncio.Server | None = None


class Tunnels:
    """Parks the connections of code servers and splices the agent's own onto them."""

    def __init__(
        self,
        socket_dir: Path,
        directory: JobDirectory,
        *,
        take_seconds: float = 20.0,
        ping_seconds: float = 20.0,
    ) -> None:
        """Raise ConfigError when the sockets' path would be too long."""
        longest = socket_dir / f"srv-{'0' * 20}.sock"
        if len(str(longest)) > _SOCKET_PATH_MAX:
            raise ConfigError(
                f"relay socket directory {socket_dir}: the path of a unix socket is limited to "
                f"{_SOCKET_PATH_MAX} bytes, {longest.name} would not fit; choose a shorter one"
            )
        self._socket_dir = socket_dir
        self._directory = directory
        self._take_seconds = take_seconds
        self._ping_seconds = ping_seconds
        self._endpoints: dict[str, _Endpoint] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opening = asyncio.Lock()
        self._closed = False

    def socket(self, key: str) -> Path:
        """Return the path of a code server's local socket; it exists once it has been connected."""
        return self._socket_dir / f"{key}.sock"

    def connected(self, key: str) -> bool:
        """Whether a code server has a connection parked."""
        endpoint = self._endpoints.get(key)
        return endpoint is not None and bool(endpoint.parked)

    async def wait_connected(self, key: str, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until a code server has a connection parked; False after ``timeout`` seconds."""
        try:
            endpoint = await self._endpoint(key)
        except _RefusedError:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await _arrival(endpoint)
        return bool(endpoint.parked)

    async def serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        vouch: Callable[[], None],
    ) -> None:
        """Take a connection that a node program has dialled, and park it or close it."""
        self._track()
        is_parked = False
        try:
            await self._admit(reader, writer, vouch)
            is_parked = True
        except asyncio.CancelledError:
            # The relay stops. Streams report a cancelled callback as an error (asyncio/streams.py).
            writer.transport.abort()
        except _RefusedError as refused:
            refusals.info("tunnel refused: %s", refused)
            with contextlib.suppress(OSError):
                writer.write(b"-%s\n" % str(refused).encode())
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            refusals.info("tunnel given up: %s", error or type(error).__name__)
        finally:
            if not is_parked:
                writer.close()

    async def forget(self, key: str) -> None:
        """Drop everything of a code server that is gone, its local socket included."""
        endpoint = self._endpoints.pop(key, None)
        if endpoint is not None:
            await self._close(endpoint)

    async def close(self) -> None:
        """Drop all connections and sockets."""
        self._closed = True
        async with self._opening:  # whoever is opening a socket right now has it closed below
            tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for key in list(self._endpoints):
            await self.forget(key)

    def _track(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a stream callback runs in a task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _admit(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        vouch: Callable[[], None],
    ) -> None:
        token, generation = _parse_hello(await _hello(reader))
        try:
            identity = await self._directory.identify(token)
        except HpcAgentError as error:
            raise _RefusedError(f"try again later: {error}") from error
        if identity is None:
            raise _RefusedError("no job of this agent has this token")
        if identity.is_over:
            raise _RefusedError("this job has ended")
        vouch()
        if identity.kind != "code_server":
            raise _RefusedError("only code servers have tunnels")
        endpoint = await self._endpoint(identity.key)
        await self._enter_generation(endpoint, identity.key, generation)
        if len(endpoint.parked) >= _MAX_PARKED:
            raise _RefusedError(f"{_MAX_PARKED} connections are parked already")
        writer.write(b"+")
        await writer.drain()
        endpoint.parked.append(
            Parked(
                reader,
                writer,
                ping_seconds=self._ping_seconds,
                on_lost=lambda lost: _discard(endpoint, lost),
            )
        )
        endpoint.arrived.set()

    async def _enter_generation(self, endpoint: _Endpoint, key: str, generation: str) -> None:
        """Let the newest start of a job replace an older one, which may not come back."""
        if generation in endpoint.retired:
            raise _RefusedError("a newer start of this job has taken over")
        if endpoint.generation == generation:
            return
        if endpoint.generation:
            log.info("%s was started anew: its older tunnels are dropped", key)
            endpoint.retired.append(endpoint.generation)
        endpoint.generation = generation
        older, endpoint.parked = endpoint.parked, deque()
        for parked in older:
            await parked.close()

    async def _endpoint(self, key: str) -> _Endpoint:
        async with self._opening:
            if self._closed:
                raise _RefusedError("the relay is stopping")
            if key not in self._endpoints:
                endpoint = _Endpoint(socket=self.socket(key))
                endpoint.server = await asyncio.start_unix_server(
                    lambda reader, writer: self._local(endpoint, reader, writer),
                    sock=await asyncio.to_thread(_listen, endpoint.socket),
                )
                self._endpoints[key] = endpoint
            return self._endpoints[key]

    async def _local(
        self, endpoint: _Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._track()
        if self._closed:
            writer.transport.abort()
            return
        try:
            async with asyncio.timeout(self._take_seconds):
                parked = await _take(endpoint)
            await splice((reader, writer), (parked.reader, parked.writer))
        except TimeoutError:
            log.warning("%s has no connection parked", endpoint.socket.stem)
        except asyncio.CancelledError:
            writer.transport.abort()  # the relay stops, as above
        finally:
            writer.close()

    async def _close(self, endpoint: _Endpoint) -> None:
        if endpoint.server is not None:
            endpoint.server.close()
        await asyncio.to_thread(endpoint.socket.unlink, missing_ok=True)
        while endpoint.parked:
            await endpoint.parked.popleft().close()


def _listen(path: Path) -> socket.socket:
    """Listen on a unix socket that this user alone may open. Blocking."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o600)
    listening.setblocking(False)
    return listening


async def _arrival(endpoint: _Endpoint) -> None:
    while not endpoint.parked:
        endpoint.arrived.clear()
        await endpoint.arrived.wait()


async def _take(endpoint: _Endpoint) -> Parked:
    while True:
        await _arrival(endpoint)
        parked = endpoint.parked.popleft()
        if await parked.go():
            return parked


def _discard(endpoint: _Endpoint, parked: Parked) -> None:
    with contextlib.suppress(ValueError):
        endpoint.parked.remove(parked)


async def _hello(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(_HELLO_SECONDS):
            line = await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        line = b""
    if not 0 < len(line) <= _HELLO_BYTES:
        raise _RefusedError("the greeting is too long")
    return line


def _parse_hello(line: bytes) -> tuple[str, str]:
    try:
        hello = json.loads(line)
        return str(hello["token"]), str(hello["generation"])
    except (ValueError, KeyError, TypeError):
        raise _RefusedError("the greeting is not understood") from None
