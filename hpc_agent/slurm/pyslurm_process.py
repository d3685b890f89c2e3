"""The process that pyslurm lives in, seen from the agent: started, asked, killed when it is late.

One call at a time: pyslurm holds the GIL in each. A process that died or was killed is started
again at the next call, after growing waits while that goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_agent.descriptors import as_given
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.slurm.commands import clean_environment
from hpc_agent.slurm.observation import OnCall, nobody, observed

HELPER = Path(__file__).with_name("pyslurm_helper.py")

# The first start after a failure is at once: one call that was late says nothing of the next.
_WAITS = (0.0, 1.0, 2.0, 5.0, 15.0, 30.0)
_LAST_BYTES = 500  # of stderr
_END_SECONDS = 2.0
_ADVICE = "or set scheduler.transport to cli"


class AnswerLostError(Exception):
    """A request was sent, and its answer will not come: nobody knows whether Slurm acted on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """What pyslurm had against a call; ``kind`` and ``errno`` as in pyslurm_helper."""

    kind: str
    message: str
    errno: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call returned, or its error."""

    result: Any = None
    error: CallError | None = None


class PyslurmProcess:
    """Asks pyslurm in a process of its own."""

    def __init__(
        self,
        python: Path | None = None,
        *,
        environment: Mapping[str, str],
        slurm_version: Callable[[], Awaitable[str]],
        import_timeout_seconds: float = 90.0,
        on_call: OnCall = nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the Python that has pyslurm, ours by default; nothing is started yet.

        ``slurm_version`` is asked at each start: pyslurm is built for one release of Slurm. An
        import without Slurm's configuration retries for a minute, so it has a deadline of its own.
        """
        self.python = str(python or sys.executable)
        self._environment = clean_environment(environment)
        self._slurm_version = slurm_version
        self._import_timeout = import_timeout_seconds
        self._clock = clock
        self._on_call = on_call
        self._lock = asyncio.Lock()
        self._helper: _Helper | None = None
        self._failures = 0
        self._not_before = float("-inf")
        self._problem = ""

    @property
    def pid(self) -> int | None:
        """The process that answers, None when there is none."""
        return self._helper.pid if self._helper is not None else None

    async def start(self) -> str:
        """Return pyslurm's release once it is imported.

        Raises SchedulerUnavailableError with what is wrong and what to do.
        """
        async with self._lock:
            return (await self._ready()).release or ""

    async def call(
        self, name: str, arguments: Mapping[str, Any], *, timeout_seconds: float
    ) -> Answer:
        """Make one call. Raises AnswerLostError, or SchedulerUnavailableError: nothing was sent."""
        async with self._lock:
            helper = await self._ready()
            try:
                with observed(name, self._on_call) as call:
                    answer = await helper.ask(name, arguments, timeout_seconds)
                    call.ended(well=answer.error is None)
            except AnswerLostError as error:
                await self._drop(str(error))
                raise
            self._failures = 0
            return answer

    async def close(self) -> None:
        """End the process; a call that it is in has no answer."""
        helper, self._helper = self._helper, None
        if helper is not None:
            await helper.kill()

    async def _ready(self) -> _Helper:
        if self._helper is not None and self._helper.has_ended:
            await self._drop(f"the process of pyslurm {self._helper.ending}")
        if self._helper is None:
            if self._clock() < self._not_before:
                raise SchedulerUnavailableError(self._problem)
            version = await self._slurm_version()
            try:
                self._helper = await self._start(version)
            except AnswerLostError as error:
                await self._drop(str(error))
                raise SchedulerUnavailableError(str(error)) from error
        return self._helper

    async def _start(self, version: str) -> _Helper:
        """Return a helper that has imported pyslurm. Raises AnswerLostError when there is none."""
        try:
            helper = await _Helper.start(self.python, self._environment)
        except OSError as error:
            raise AnswerLostError(
                f"{self.python} cannot be run ({error.strerror}): have scheduler.pyslurm.python"
                f" name a Python that has pyslurm, {_ADVICE}"
            ) from error
        try:
            await helper.greet(self._import_timeout)
            await self._import(helper, version)
        except BaseException:
            await helper.kill()
            raise
        return helper

    async def _import(self, helper: _Helper, version: str) -> None:
        trouble = mismatch(helper.release, version, python=self.python)
        if trouble is not None:
            raise AnswerLostError(trouble)
        try:
            answer = await helper.ask("import", {}, self._import_timeout)
        except AnswerLostError as error:
            raise AnswerLostError(
                f"pyslurm cannot be imported by {self.python}: {error}. It ends its process where"
                f" it finds no Slurm configuration: set scheduler.slurm_conf, {_ADVICE}"
            ) from error
        if answer.error is not None:
            raise AnswerLostError(
                f"pyslurm cannot be imported by {self.python}: {answer.error.message}."
                f" Build it anew against the libslurm of this machine, {_ADVICE}"
            )

    async def _drop(self, problem: str) -> None:
        await self.close()
        wait = _WAITS[min(self._failures, len(_WAITS) - 1)]
        self._failures += 1
        self._not_before = self._clock() + wait
        self._problem = problem


def mismatch(release: str | None, version: str, *, python: str) -> str | None:
    """Say what is wrong with a release of pyslurm for a version of Slurm (``slurm 24.11.5``).

    Their first two numbers must be the same: ``X.Y.Z`` is built against Slurm X.Y (pyslurm's
    ``version.py``), and other headers make calls abort.
    """
    wanted = _line(version)
    if wanted is None:
        return f"no version of Slurm can be read from {version!r}: set scheduler.transport to cli"
    line = f"{wanted[0]}.{wanted[1]:02}"
    build = f"install pyslurm {line}.x there (github.com/PySlurm/pyslurm/releases)"
    if release is None:
        return (
            f"{python} has no pyslurm: {build}, have scheduler.pyslurm.python name another"
            f" Python, {_ADVICE}"
        )
    if _line(release) != wanted:
        return (
            f"pyslurm {release} of {python} was not built for this {version},"
            f" and its calls could abort: {build}, {_ADVICE}"
        )
    return None


def _line(version: str) -> tuple[int, int] | None:
    """Return the line of a release as numbers: package versions lose zeros (``24.5.0``)."""
    match = re.search(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


class _Helper:
    """A running pyslurm_helper."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin and process.stdout and process.stderr  # noqa: S101 - all are pipes
        self._process = process
        self._requests, self._answers = process.stdin, process.stdout
        self._words = b""
        self._listening = asyncio.create_task(self._listen(process.stderr))
        self._number = 0
        self.release: str | None = None

    @classmethod
    async def start(cls, python: str, environment: Mapping[str, str]) -> _Helper:
        """Start the program. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *as_given([python, str(HELPER), str(os.getpid())]),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    @property
    def ending(self) -> str:
        """How it ended, with its last words."""
        code = self._process.returncode or 0
        how = f"died of {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        words = " ".join(self._words.decode(errors="replace").split())
        return f"{how} ({words})" if words else how

    async def greet(self, timeout_seconds: float) -> None:
        """Read the greeting. Raises AnswerLostError."""
        greeting = await self._read("its start", timeout_seconds)
        self.release = greeting["pyslurm"]

    async def ask(self, name: str, arguments: Mapping[str, Any], seconds: float) -> Answer:
        """Send a request and read its answer. Raises AnswerLostError."""
        self._number += 1
        request = {"id": self._number, "call": name, "arguments": arguments}
        with contextlib.suppress(ConnectionError):  # then there is no answer either
            self._requests.write(json.dumps(request).encode() + b"\n")
            await self._requests.drain()
        content: dict[str, Any] = {}
        deadline = time.monotonic() + seconds
        while content.get("id") != self._number:  # a call whose caller went away is answered first
            content = await self._read(name, deadline - time.monotonic(), of=seconds)
        error = content.get("error")
        return Answer(result=content.get("result"), error=CallError(**error) if error else None)

    async def kill(self) -> None:
        """End it, and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._requests.close()
        await self._process.wait()
        await self._listening

    async def _read(self, what: str, seconds: float, *, of: float | None = None) -> dict[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                line = await self._answers.readline()
        except ValueError as error:  # longer than the reader's limit: no answer of the helper is
            raise AnswerLostError(f"pyslurm's answer to {what} cannot be read: {error}") from None
        except TimeoutError:
            raise AnswerLostError(
                f"pyslurm gave no answer to {what} within {of or seconds:g} s, and was killed"
            ) from None
        if not line.endswith(b"\n"):
            await self._end()
            raise AnswerLostError(f"the process of pyslurm {self.ending} during {what}")
        try:
            content: object = json.loads(line)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            words = line[:_LAST_BYTES].decode(errors="replace")
            raise AnswerLostError(f"pyslurm's answer to {what} cannot be read: {words}")
        return content

    async def _end(self) -> None:
        """Wait for the end of a process that has closed its answers, so that it tells its code."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        await self.kill()

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        """Keep the last words: an unread pipe would stop the program in the end."""
        while chunk := await stderr.read(65536):
            self._words = (self._words + chunk)[-_LAST_BYTES:]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
