"""Runs commands on a machine of the cluster, over an SSH connection.

Every command is a channel of its own, under ``timeout`` on the other side: what is over its
deadline ends there as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hpc_agent.slurm import ssh_shell
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
                mark = ssh_shell.begin(
                    channel,
                    self._words(argv, environment, timeout_seconds),
                    path=self.shared.target.path,
                    has_input=False,
                )
                stdout, stderr, code = _finish(channel, timeout_seconds + _MARGIN_SECONDS)
            except TimeoutError:
                return result(None)
            except (paramiko.SSHException, OSError, EOFError) as error:
                return result(_HUNG_UP, stderr=f"the connection was lost: {error}")
        own, errors = ssh_shell.after_mark(stdout, mark), ssh_shell.after_mark(stderr, mark)
        if code == -1:
            return result(_HUNG_UP, _text(own), _text(errors) or "the connection was lost")
        if own is None:
            problem = OSError(ssh_shell.not_begun(stdout, stderr))
            return result(NOT_CONNECTED, stderr=self.shared.words(problem))
        is_late = time.monotonic() - began >= timeout_seconds
        is_timed_out = code == _TIMED_OUT or (code == _KILLED and is_late)
        return result(None if is_timed_out else code, _text(own), _text(errors))

    def _words(
        self, argv: list[str], environment: dict[str, str], timeout_seconds: float
    ) -> list[str]:
        merged = {**self.shared.target.environment, **environment}
        assignments = [f"{name}={value}" for name, value in merged.items()]
        return ["timeout", "--kill-after=2", f"{timeout_seconds:g}", "env", *assignments, *argv]


def _finish(channel: paramiko.Channel, seconds: float) -> tuple[bytes, bytes, int]:
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
    return bytes(output), bytes(errors), channel.recv_exit_status()


def _text(printed: bytes | None) -> str:
    return (printed or b"").decode(errors="replace")


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
