"""Runs commands on a machine of the cluster, all over one SSH connection.

The connection is made at the first command and again when it is lost. Every command is a channel of
its own, under ``timeout`` on the other side: what is over its deadline ends there as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hpc_agent.errors import ConfigError
from hpc_agent.slurm.commands import CommandResult
from hpc_agent.slurm.ssh_connection import CONNECT_SECONDS, Connection, SshTarget, connect

if TYPE_CHECKING:
    import paramiko

NOT_CONNECTED = 255
"""The return code of a command that was never sent, as ssh(1) has it."""
_HUNG_UP = -1  # as if by SIGHUP: the command was sent, and its end is not known
# Channels at once: sshd allows ten (MaxSessions, sshd_config(5)). Threads of its own, so that a
# dead machine keeps nothing else waiting.
_COMMANDS_AT_ONCE = 8
_MARGIN_SECONDS = 5.0
_WAITS = (1.0, 2.0, 5.0, 15.0, 30.0)
_TIMED_OUT, _KILLED = 124, 137  # timeout(1)


class SshRunner:
    """A command runner on the other side of an SSH connection."""

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self._threads = ThreadPoolExecutor(_COMMANDS_AT_ONCE, thread_name_prefix="ssh")
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
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, self._run, list(argv), dict(environment), timeout_seconds
        )

    def close(self) -> None:
        """End the connection, and the commands on it."""
        self._drop()
        self._threads.shutdown(cancel_futures=True)

    def _drop(self) -> None:
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

        began = time.monotonic()
        try:
            channel = self._open_channel()
        except (paramiko.SSHException, OSError) as error:
            return result(NOT_CONNECTED, stderr=self._words(error))
        with contextlib.closing(channel):
            try:
                channel.exec_command(self._command_line(argv, environment, timeout_seconds))
                stdout, stderr, code = _finish(channel, timeout_seconds + _MARGIN_SECONDS)
            except TimeoutError:
                return result(None)
            except (paramiko.SSHException, OSError, EOFError) as error:
                return result(_HUNG_UP, stderr=f"the connection was lost: {error}")
        if code == -1:
            return result(_HUNG_UP, stdout, stderr or "the connection was lost")
        is_late = time.monotonic() - began >= timeout_seconds
        is_timed_out = code == _TIMED_OUT or (code == _KILLED and is_late)
        return result(None if is_timed_out else code, stdout, stderr)

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
        """Open a channel, on a new connection when the one there was is dead."""
        import paramiko

        with self._lock:
            if self._connection is not None and not self._connection.lives:
                self._connection.close()
                self._connection = None
            connection = self._connection = self._connection or self._connect()
        try:
            return connection.transport.open_session(timeout=CONNECT_SECONDS)
        except paramiko.ChannelException:
            raise  # the other side refuses one more; the channels that are open go on
        except (paramiko.SSHException, OSError):
            self._drop()
            raise

    def _connect(self) -> Connection:
        """Connect, but not at once again after a failure: the next waiter gets the same words."""
        import paramiko

        if time.monotonic() < self._not_before:
            raise OSError(self._problem)
        try:
            connection = connect(self._target)
        except (paramiko.SSHException, OSError, ConfigError) as error:
            wait = _WAITS[min(self._failures, len(_WAITS) - 1)]
            self._failures += 1
            self._not_before = time.monotonic() + wait
            self._problem = self._words(error)
            raise OSError(self._problem) from error
        self._failures = 0
        return connection

    def _words(self, error: Exception) -> str:
        words = str(error) or type(error).__name__
        prefix = f"Unable to connect to {self._target.host} by ssh: "
        return words if words.startswith(prefix) else f"{prefix}{words}"


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
