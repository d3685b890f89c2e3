"""``node.pyz --stacks KEY``: what the Python processes of a job are doing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.jobs.node_program import build_node_program

SLEEPS = "def waits_here():\n    print('up', flush=True)\n    input()\nwaits_here()"


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the token of a job in its environment, as user code has."""
    environment = {**os.environ, "HPC_AGENT_JOB_TOKEN": "key-of-stacks:secret"}
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        process.kill()


def stacks(program: Path, key: str, *, path: str) -> subprocess.CompletedProcess[str]:
    """Ask for the stacks of a job, with py-spy found by PATH alone."""
    return subprocess.run(
        [sys.executable, str(program), "--stacks", key],
        capture_output=True,
        text=True,
        env={"PATH": path},
        check=False,
        timeout=60,
    )


def test_stack_of_a_process_is_shown(tmp_path: Path, waiting: subprocess.Popen[bytes]) -> None:
    """With the function in which it waits; another job's processes are not looked at."""
    program = build_node_program(tmp_path)
    done = stacks(program, "key-of-stacks", path=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    assert f"==> process {waiting.pid}: " in done.stdout
    assert "waits_here" in done.stdout.partition("\n")[2]
    assert "secret" not in done.stdout


def test_job_without_processes_here_is_told(tmp_path: Path) -> None:
    """It may have others on another node."""
    done = stacks(build_node_program(tmp_path), "key-of-nobody", path=os.environ["PATH"])
    assert (done.returncode, "no process of key-of-nobody on" in done.stdout) == (1, True)


def test_without_py_spy_the_kernel_is_asked(tmp_path: Path) -> None:
    """A process that is no Python: py-spy is neither beside it nor on PATH."""
    environment = {"PATH": "/nowhere", "HPC_AGENT_JOB_TOKEN": "key-of-sleep:secret"}
    with subprocess.Popen(["/bin/sleep", "60"], env=environment) as process:
        done = stacks(build_node_program(tmp_path), "key-of-sleep", path="/nowhere")
        process.kill()
    assert "State:\tS (sleeping)" in done.stdout
