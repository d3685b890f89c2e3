"""Child processes of the demo: in groups of their own, ended by the pid that was started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from hpc_agent.errors import HpcAgentError

Result = TypeVar("Result")

_TERM_SECONDS = 20.0
_LOOK_SECONDS = 0.1
_TAIL_BYTES = 3000


@dataclass(slots=True)
class Child:
    """A child process whose standard error goes to a file."""

    name: str
    argv: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self, stdout: IO[bytes] | None = None) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=stdout if stdout is not None else log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id. Raises HpcAgentError when it was not started."""
        if self.process is None:
            raise HpcAgentError(f"{self.name} is not started")
        return self.process.pid

    def check(self) -> None:
        """Raise HpcAgentError with the end of the log when the process has died."""
        if self.process is not None and self.process.poll() is not None:
            raise HpcAgentError(
                f"{self.name} ended with exit code {self.process.returncode}:\n{self.tail()}"
            )

    def tail(self) -> str:
        """Return the end of the log."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")

    def terminate(self) -> None:
        """Ask the process to end, and do not wait for it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()

    def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL for its group when that does not help."""
        self.terminate()
        if self.process is None:
            return
        try:
            self.process.wait(_TERM_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End the process with SIGKILL and nothing before: what a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def wait_for(
    what: str,
    look: Callable[[], Result | None],
    *,
    seconds: float,
    alive: Sequence[Child] = (),
) -> Result:
    """Look again and again until there is a result.

    Raises HpcAgentError after ``seconds``, or as soon as one of the ``alive`` has died.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = look()
        if result:
            return result
        for child in alive:
            child.check()
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {child.name}\n{child.tail()}" for child in alive)
            raise HpcAgentError(f"{what}: nothing after {seconds:.0f} s\n{logs}")
        time.sleep(_LOOK_SECONDS)
