"""Child processes are kept running, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from hpc_agent.control_plane.supervisor import Program, Supervisor
from tests.control_plane.running import poll

SPAWN = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("pids", "a") as file:
    file.write(f"{__import__('os').getpid()} {child.pid}\\n")
time.sleep(600)
"""


RUN_SUPERVISOR = """
import asyncio, pathlib
from hpc_agent.control_plane.supervisor import Supervisor
from tests.control_plane.test_supervisor import program
asyncio.run(Supervisor(program(pathlib.Path({directory!r}))).run())
"""


def program(directory: Path) -> Program:
    return Program(
        name="sleeper", argv=[sys.executable, "-c", SPAWN], environment={},
        log=directory / "sleeper.log", working_directory=directory,
    )  # fmt: skip


def pids(directory: Path) -> list[list[int]]:
    """Return (parent, child) of each start so far."""
    path = directory / "pids"
    lines = path.read_text().splitlines() if path.exists() else []
    return [[int(pid) for pid in line.split()] for line in lines]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 other processes
            await asyncio.sleep(0.05)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_program_that_dies_is_started_again(tmp_path: Path) -> None:
    """A crashed child is replaced; ending the supervisor ends it and its own children."""
    supervisor = Supervisor(program(tmp_path))
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(pids(tmp_path)) == 1)
    first, orphan = pids(tmp_path)[0]

    os.kill(first, 9)
    await until(lambda: len(pids(tmp_path)) == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    await until(lambda: all(is_gone(pid) for pid in (orphan, *pids(tmp_path)[1])))


def test_program_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """After kill -9 nobody is left to end the program: the kernel does."""
    argv = [sys.executable, "-c", RUN_SUPERVISOR.format(directory=str(tmp_path))]
    with subprocess.Popen(argv) as supervisor:
        pid, orphan = poll(lambda: pids(tmp_path), "the program starts")[0]
        supervisor.kill()

    os.kill(orphan, 9)  # not inherited: a child of the program is the program's own business
    poll(lambda: is_gone(pid), "the program is gone")


async def test_restart_replaces_the_program_at_once(tmp_path: Path) -> None:
    """A wanted restart waits for no back-off."""
    supervisor = Supervisor(program(tmp_path))
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(pids(tmp_path)) == 1)

    await supervisor.restart()
    await until(lambda: len(pids(tmp_path)) == 2)

    assert is_gone(pids(tmp_path)[0][0])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await until(lambda: all(is_gone(pid) for pid in pids(tmp_path)[1]))
