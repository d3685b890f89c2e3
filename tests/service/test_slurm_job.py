"""The agent as a Slurm job: on a real Slurm, with a stand-in that notes its signals."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.service.program import Kind, Program
from hpc_agent.service.slurm_job import SCRIPT, AgentJob, install_job, render_job, uninstall_job
from tests.cluster import SlurmCluster

from .test_unit import HOSTILE_NAMES
from .user_manager import wait_until

# Notes what it was started with and what it is told; `code` says how it ends at once.
AGENT = """\
#!/bin/bash
trap 'echo TERM >>notes; exit 0' TERM
env | grep -c '^SLURM_JOB' >>notes
echo "started $*" >>notes
[ ! -e code ] || exit "$(cat code)"
while :; do sleep 0.1; done
"""
pytestmark = pytest.mark.timeout(180)


def a_job(directory: Path, *arguments: str) -> AgentJob:
    program = Program(
        kind=Kind.AGENT,
        executable=directory / "hpc-agent",
        arguments=arguments or ("start", "--config", "a b.yaml"),
        environment={"PATH": os.environ["PATH"]},
    )
    return AgentJob(program=program, directory=directory, options={"time": "0:10:00"})


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_script_is_shell_whatever_names_hold(name: str, tmp_path: Path) -> None:
    """shellcheck has nothing to remark, and no name becomes an option of the job."""
    text = render_job(a_job(tmp_path / name, "start", "--config", f"/{name}\n#SBATCH --wrap=x"))
    head = text.partition("\ncd ")[0]
    assert [line for line in head.splitlines() if "wrap" in line or "ExecStart" in line] == []
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        ["shellcheck", "--severity=warning", "--exclude=SC2289", "-"],  # a path with a tab
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


class Queue:
    """The job's directory, and the jobs of its name."""

    def __init__(self, cluster: SlurmCluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            argv, cwd=self.directory, env=dict(self.cluster.environment),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def jobs(self, state: str) -> list[str]:
        lines = self.run("squeue", "--me", "--name=hpc-agent", "-h", "-t", state, "-o", "%i %r %n")
        return lines.splitlines()

    @property
    def notes(self) -> list[str]:
        file = self.directory / "notes"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def queue(slurm_cluster: SlurmCluster, tmp_path: Path) -> Iterator[Queue]:
    tmp_path.chmod(0o755)
    program = tmp_path / "hpc-agent"
    program.write_text(AGENT)
    program.chmod(0o755)
    install_job(a_job(tmp_path))
    found = Queue(slurm_cluster, tmp_path)
    yield found
    found.run("scancel", "--me", "--name=hpc-agent")


@pytest.mark.slurm
def test_successor_waits_on_the_same_node_and_the_agent_is_told_of_the_end(queue: Queue) -> None:
    """Slurm's warning before the time limit reaches the agent, which has time to stop."""
    queue.run("sbatch", SCRIPT)
    wait_until(lambda: len(queue.notes) == 2, what="the agent's start", seconds=60)
    assert queue.notes == ["0", "started start --config a b.yaml"]
    (running,) = queue.run("squeue", "--me", "-h", "-t", "R", "-o", "%i %N").splitlines()
    job, node = running.split()
    (waiting,) = queue.jobs("PD")
    assert waiting.split()[1] in {"Dependency", "BeginTime"}
    assert waiting.split()[2] == node

    queue.run("scancel", "--batch", "--signal=TERM", job)  # as --signal=B:TERM@120 does

    wait_until(lambda: queue.notes[-1] == "TERM", what="the signal")
    wait_until(lambda: not queue.jobs("R"), what="the job's end")
    assert [line.split()[0] for line in queue.jobs("PD")] == [waiting.split()[0]]


@pytest.mark.slurm
def test_wrong_configuration_is_no_storm_of_jobs(queue: Queue) -> None:
    """Exit code 2 takes the successor away; any other one leaves it, a minute later."""
    (queue.directory / "code").write_text("2")
    queue.run("sbatch", SCRIPT)
    wait_until(lambda: len(queue.notes) == 2, what="the agent's start", seconds=60)
    wait_until(lambda: not queue.jobs("PD,R,CG"), what="no job")


@pytest.mark.slurm
def test_removed_script_submits_no_successor(queue: Queue) -> None:
    """The one that runs goes on, and is the last."""
    queue.run("sbatch", "--hold", SCRIPT)
    outcome = uninstall_job(queue.directory)
    assert outcome.changed
    assert not uninstall_job(queue.directory).changed
    (held,) = queue.jobs("PD")
    queue.run("scontrol", "release", held.split()[0])
    wait_until(lambda: len(queue.notes) == 2, what="the agent's start", seconds=60)
    assert not queue.jobs("PD")
