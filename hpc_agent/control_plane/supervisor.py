"""Child processes kept running: restarted with back-off, ended as whole process groups."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpc_agent.control_plane import die_with_parent
from hpc_agent.descriptors import as_given
from hpc_agent.journal.files import Rotation
from hpc_agent.journal.output import OutputFile
from hpc_agent.metrics.gateway import CHILD_STARTS
from hpc_agent.metrics.meter import SILENT, Meter

FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
"""A process that lived this long is started again without delay."""

STOP_GRACE_SECONDS = 20.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run; ``environment`` is merged over ours."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    working_directory: Path
    rotation: Rotation = field(default_factory=Rotation)


class Supervisor:
    """Keeps one program running until the task that runs ``run`` is cancelled."""

    def __init__(self, program: Program, meter: Meter = SILENT) -> None:
        self._program = program
        self._meter = meter
        self._process: asyncio.subprocess.Process | None = None
        self._restart = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def run(self) -> None:
        output = await asyncio.to_thread(OutputFile, self._program.log, self._program.rotation)
        try:
            await self._keep_running(output)
        finally:
            await self._stop()
            await asyncio.to_thread(output.close)

    async def _keep_running(self, output: OutputFile) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            started = time.monotonic()
            code = await self._run_once(output)
            if self._restart:
                self._restart, backoff = False, FIRST_BACKOFF_SECONDS
                continue
            if time.monotonic() - started > HEALTHY_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            logger.error(
                "%s ended with code %s; starting it again in %.1f s; its log is %s",
                self._program.name, code, backoff, self._program.log,
            )  # fmt: skip
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)

    async def restart(self) -> None:
        """End the program so that it starts afresh."""
        if self._process is not None and self._process.returncode is None:
            self._restart = True
            await self._stop()

    async def _run_once(self, output: OutputFile) -> int:
        self._meter.count(CHILD_STARTS, self._program.name)
        self._process = await asyncio.create_subprocess_exec(
            *as_given(_mortal(self._program.argv)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output.descriptor,
            stderr=output.descriptor,
            cwd=self._program.working_directory,
            env={**os.environ, **self._program.environment},
            start_new_session=True,
        )
        code = await self._process.wait()
        _signal_group(self._process.pid, signal.SIGKILL)  # what a crashed leader left behind
        return code

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), STOP_GRACE_SECONDS)
        except TimeoutError:
            logger.warning("%s did not end when asked: killing it", self._program.name)
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()


def _mortal(argv: Sequence[str]) -> list[str]:
    """Make a program die with us, should we be killed."""
    return [sys.executable, die_with_parent.__file__, str(os.getpid()), *argv]


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
