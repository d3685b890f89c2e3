"""Real child processes: output, deadline, missing programs, environment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpc_agent.slurm.commands import ProcessRunner, clean_environment
from tests.slurm.waiting import until, until_text

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


async def test_output_and_exit_code() -> None:
    """Both streams are kept, also when they are larger than a pipe."""
    code = "import sys; print('x' * 200000); print('bad', file=sys.stderr); sys.exit(4)"
    result = await ProcessRunner(ENVIRONMENT).run(
        [sys.executable, "-c", code], environment={}, timeout_seconds=30
    )
    assert (result.returncode, result.stderr) == (4, "bad\n")
    assert result.stdout == "x" * 200000 + "\n"
    assert not result.succeeded


async def test_a_command_is_killed_at_its_deadline_with_its_children(tmp_path: Path) -> None:
    """What it said until then is kept."""
    script = f"echo partial; sleep 300 & echo $! > {tmp_path}/pid; wait"
    started = time.monotonic()
    result = await ProcessRunner(ENVIRONMENT).run(
        ["sh", "-c", script], environment={}, timeout_seconds=0.5
    )
    assert time.monotonic() - started < 10
    assert result.returncode is None
    assert result.stdout == "partial\n"
    assert "killed after 0.5 s" in result.describe()
    child = int((tmp_path / "pid").read_text())
    await until(lambda: not _lives(child), "the end of the child")


async def test_a_canceled_call_leaves_no_process(tmp_path: Path) -> None:
    """Shutting down kills what is under way."""
    script = f"echo $$ > {tmp_path}/pid; exec sleep 300"
    call = asyncio.create_task(
        ProcessRunner(ENVIRONMENT).run(["sh", "-c", script], environment={}, timeout_seconds=60)
    )
    pid = int(await until_text(tmp_path / "pid"))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not _lives(pid), "the end of the command")


@pytest.mark.parametrize("command", ["echo hello", "echo hello; exec sleep 300"])
async def test_what_a_command_leaves_behind_is_not_waited_for(tmp_path: Path, command: str) -> None:
    """A daemon has its standard output and has left its session: the answer comes all the same."""
    daemon = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 300' & "
    wait = f"while ! test -s {tmp_path}/pid; do :; done; "
    descriptors = _open_files()
    started = time.monotonic()
    result = await ProcessRunner(ENVIRONMENT).run(
        ["sh", "-c", f"{daemon}{wait}{command}"], environment={}, timeout_seconds=5
    )
    os.kill(int(await until_text(tmp_path / "pid")), signal.SIGKILL)
    assert time.monotonic() - started < 30
    assert result.stdout == "hello\n"
    assert result.returncode == (None if "sleep" in command else 0)
    assert _open_files() <= descriptors


async def test_a_command_that_prints_without_end_is_killed() -> None:
    """It would fill the agent's memory."""
    result = await ProcessRunner(ENVIRONMENT, most_bytes=1 << 20).run(
        ["cat", "/dev/zero"], environment={}, timeout_seconds=60
    )
    assert not result.succeeded
    assert len(result.stdout) < 2 << 20


async def test_a_missing_program_is_a_result() -> None:
    """As a shell would say: 127."""
    result = await ProcessRunner(ENVIRONMENT).run(
        ["no-such-program"], environment={}, timeout_seconds=5
    )
    assert result.returncode == 127
    assert "PATH=/usr/bin:/bin" in result.stderr


def test_the_environment_is_cleaned() -> None:
    """Settings of a user's shell and of an enclosing job do not change what commands do."""
    cleaned = clean_environment(
        {
            "PATH": "/bin",
            "SLURM_CONF": "/etc/slurm.conf",
            "SLURM_JOB_ID": "1",
            "SLURM_CPU_BIND": "quiet",
            "SBATCH_PARTITION": "x",
            "SQUEUE_STATES": "R",
            "SINFO_FORMAT": "%N",
        }
    )
    assert cleaned == {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf"}


def _open_files() -> int:
    return psutil.Process().num_fds()


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
