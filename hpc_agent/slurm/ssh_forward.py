"""A port on a machine of the cluster that leads back to a port here, over the SSH connection.

sshd opens it on its loopback address only (GatewayPorts, sshd_config(5)); a program that is started
there and ends with the connection lets other machines in. All of it blocks, and is for threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.slurm import ssh_shell
from hpc_agent.slurm.ssh_connection import CONNECT_SECONDS
from hpc_agent.slurm.ssh_shared import SharedConnection

if TYPE_CHECKING:
    import paramiko

_CHUNK = 1 << 16
# paramiko does not tell when the other side has room again.
_NO_ROOM_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Listening:
    """Where machines of the cluster can connect."""

    host: str
    port: int


class RemotePort:
    """Opens the port, and again when the connection was lost."""

    def __init__(self, shared: SharedConnection, *, local_port: int) -> None:
        self._shared = shared
        self._pump = _Pump(local_port)
        self._program: paramiko.Channel | None = None
        self._forward: tuple[paramiko.Transport, int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the port leads here."""
        program = self._program
        return program is not None and not program.closed and not program.eof_received

    def open(self, program: Sequence[str], settings: dict[str, Any]) -> Listening:
        """Start ``program`` over there and return where it listens.

        Its last argument is ``settings`` as JSON, with the loopback port as ``target``; it prints
        a line of JSON with ``host`` and ``port``. Raises SchedulerUnavailableError.
        """
        import paramiko

        try:
            words = json.dumps({**settings, "target": self._forwarded()})
            channel = self._shared.open_session()
        except (paramiko.SSHException, OSError) as error:
            raise SchedulerUnavailableError(self._shared.words(error)) from error
        try:
            channel.settimeout(CONNECT_SECONDS)
            mark = ssh_shell.begin(channel, [*program, words])
            ssh_shell.await_mark(channel, mark)
            line = channel.makefile("r").readline()
            problem = "" if line else _errors(channel, mark)
        except (paramiko.SSHException, EOFError, OSError) as error:
            channel.close()
            raise SchedulerUnavailableError(self._shared.words(error)) from error
        if not line:
            channel.close()
            raise SchedulerUnavailableError(
                f"the relay's port cannot be opened on {self._shared.target.host}: "
                f"{problem.strip() or f'{program[0]} printed nothing'}"
            )
        self._program = channel
        told = json.loads(line)
        return Listening(str(told["host"]), int(told["port"]))

    def _forwarded(self) -> int:
        """Return the loopback port over there; one for each connection."""
        import paramiko

        transport = self._shared.transport()
        if self._forward is not None and self._forward[0] is transport:
            return self._forward[1]
        try:
            port = transport.request_port_forward("127.0.0.1", 0, self._accept)
        except paramiko.SSHException as error:
            raise SchedulerUnavailableError(
                f"sshd of {self._shared.target.host} forwards no port to the agent ({error}): it "
                "needs `AllowTcpForwarding yes`, or let jobs reach this machine and set "
                "scheduler.ssh.relay: direct"
            ) from error
        self._forward = transport, port
        return port

    def close(self) -> None:
        """Close the port and all that goes through it."""
        if self._program is not None:
            self._program.close()
        self._pump.close()

    def _accept(
        self, channel: paramiko.Channel, origin: tuple[str, int], server: tuple[str, int]
    ) -> None:
        self._pump.take(channel)


def _errors(channel: paramiko.Channel, mark: str) -> str:
    printed = channel.makefile_stderr("rb").read()
    return (ssh_shell.after_mark(printed, mark) or printed).decode(errors="replace")


class _Pump:
    """Copies between channels and connections to a local port.

    An event loop in a thread of its own: a slow connection to the other side stops it, and nothing
    else.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ssh-port", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread.start()

    def take(self, channel: paramiko.Channel) -> None:
        """Splice one more; any thread may say so."""
        self._loop.call_soon_threadsafe(self._start, channel)

    def close(self) -> None:
        """End all, and the thread."""
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(CONNECT_SECONDS)
        self._loop.close()

    def _start(self, channel: paramiko.Channel) -> None:
        task = self._loop.create_task(self._splice(channel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self) -> None:
        async def end() -> None:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._loop.stop()

        self._ending = self._loop.create_task(end())

    async def _splice(self, channel: paramiko.Channel) -> None:
        with contextlib.closing(channel), contextlib.suppress(OSError):
            channel.setblocking(False)
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            with contextlib.closing(writer):
                down = self._loop.create_task(_down(channel, writer))
                try:
                    await _up(reader, channel)  # what the port has ended is over
                finally:
                    down.cancel()
                    await asyncio.wait([down])


async def _down(channel: paramiko.Channel, writer: asyncio.StreamWriter) -> None:
    while chunk := await _received(channel):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


async def _received(channel: paramiko.Channel) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        try:
            return channel.recv(_CHUNK)
        except TimeoutError:
            readable = asyncio.Event()
            loop.add_reader(channel.fileno(), readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(channel.fileno())


async def _up(reader: asyncio.StreamReader, channel: paramiko.Channel) -> None:
    while chunk := await reader.read(_CHUNK):
        rest = chunk
        while rest:
            try:
                sent = channel.send(rest)
            except TimeoutError:
                await asyncio.sleep(_NO_ROOM_SECONDS)
                continue
            if not sent:
                return  # closed from the other side
            rest = rest[sent:]
    channel.shutdown_write()
