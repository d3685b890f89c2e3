"""Runs commands on a machine of the cluster, over an SSH connection.

Every command is a channel of its own, under ``timeout`` on the other side: what is over its
deadline ends there as well.
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

from hpc_agent.slurm.commands import MOST_BYTES, CommandResult
from hpc_agent.slurm.ssh_shared import SharedConnection

if TYPE_CHECKING:
    import paramiko

NOT_CONNECTED = 255
"""The return code of a command that was never sent, as ssh(1) has it."""
_HUNG_UP = -1  # as if by SIGHUP: the command was sent, and its end is not known
# Channels at once: sshd allows ten (MaxSessions, sshd_config(5)), one is for files and one for the
# relay's port. Threads of its own, so that a dead machine keeps nothing else waiting.
_COMMANDS_AT_ONCE = 8
_MARGIN_SECONDS = 5.0
_TIMED_OUT, _KILLED = 124, 137  # timeout(1)


class SshRunner:
    """A command runner on the other side of an SSH connection."""

    def __init__(self, shared: SharedConnection) -> None:
        self.shared = shared
        self._threads = ThreadPoolExecutor(_COMMANDS_AT_ONCE, thread_name_prefix="ssh")

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
        """End the connection and all that is going on on it."""
        self.shared.close()
        self._threads.shutdown(cancel_futures=True)

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
            channel = self.shared.open_session()
        except (paramiko.SSHException, OSError) as error:
            return result(NOT_CONNECTED, stderr=self.shared.words(error))
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
        merged = {**self.shared.target.environment, **environment}
        assignments = [f"{name}={value}" for name, value in merged.items()]
        line = shlex.join([*words, *assignments, *argv])
        path = self.shared.target.path
        return line if path is None else f"PATH={shlex.quote(path)}:$PATH {line}"


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
        if not chunk or len(target) > MOST_BYTES:
            return  # the command is then over its deadline
        target += chunk
