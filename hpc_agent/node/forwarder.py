"""The relay's port on a login node, for an agent that is beside the cluster.

The agent reaches the login node by SSH and has a port of its loopback address lead back to its
relay. That port is for this machine alone, so this program listens where compute nodes can connect,
and splices. It ends with its standard input, so with the SSH connection. What goes through is TLS
between job and relay: nothing of it can be read here, and it is the relay that puts out who shows
no token. What the relay has ended ends here too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import resource
import socket
import sys
from typing import Any, Dict, Set

_CHUNK = 1 << 16
_CONNECT_SECONDS = 10.0
_MOST_CONNECTIONS = 4096
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104  (compared with, not bound)


def run(settings: str) -> int:
    """Listen as ``settings`` (JSON) says, print where, and splice until standard input ends."""
    try:
        asyncio.run(_Forwarder(json.loads(settings)).run())
    except OSError as error:
        sys.stderr.write("%s\n" % error)
        return 1
    return 0


class _Forwarder:
    """Splices what comes in.

    ``bind`` and ``port``: where to listen, at any other port when that one is taken unless it
    ``must`` be it; ``target``: the loopback port; ``allow``: networks, none for all.
    """

    def __init__(self, settings: Dict[str, Any]) -> None:
        self._bind = str(settings["bind"])
        self._port = int(settings["port"])
        self._must = bool(settings["must"])
        self._target = int(settings["target"])
        self._tasks: Set["asyncio.Task[None]"] = set()
        self._most = _most_connections()
        self._allow = [ipaddress.ip_network(network) for network in settings["allow"]]

    async def run(self) -> None:
        server = await self._listen()
        port = server.sockets[0].getsockname()[1]
        host = socket.gethostname() if self._bind in _WILDCARDS else self._bind
        sys.stdout.write(json.dumps({"host": host, "port": port}) + "\n")
        sys.stdout.flush()
        await _end_of_input()
        server.close()

    async def _listen(self) -> asyncio.base_events.Server:
        try:
            return await asyncio.start_server(self._take, self._bind, self._port)
        except OSError:
            if self._must:
                raise
            return await asyncio.start_server(self._take, self._bind, 0)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._most:
            writer.transport.abort()
            return
        # asyncio itself has no hold on what serves a connection: the garbage collector ends it.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            if not self._admits(writer.get_extra_info("peername")[0]):
                return
            try:
                there = await asyncio.wait_for(
                    asyncio.open_connection("127.0.0.1", self._target), _CONNECT_SECONDS
                )
            except (OSError, asyncio.TimeoutError):
                return
            with contextlib.closing(there[1]):
                going = asyncio.ensure_future(_copy(reader, there[1]))
                try:
                    await _copy(there[0], writer)
                finally:
                    going.cancel()

    def _admits(self, peer: str) -> bool:
        address = ipaddress.ip_address(peer.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return not self._allow or any((mapped or address) in network for network in self._allow)


def _most_connections() -> int:
    """Return how many connections there can be, each of which leads to another."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return min(max(soft - 64, 64) // 2, _MOST_CONNECTIONS)


async def _end_of_input() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def read() -> None:
        if not os.read(0, _CHUNK):
            ended.set()

    loop.add_reader(0, read)
    await ended.wait()
    loop.remove_reader(0)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy to the end, and let the other side know of it; a broken connection ends both ways."""
    try:
        while True:
            chunk = await reader.read(_CHUNK)
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()
