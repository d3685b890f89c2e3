"""Jobs as child processes of this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import psutil
import pytest
from dagster_hpc.jobs import JobName, JobRequest, JobStatus, Phase
from dagster_hpc.launchers.local import LocalLauncher, cores, cpus_of_allocation

Found = TypeVar("Found")


@pytest.fixture
def launcher() -> Iterator[LocalLauncher]:
    """One of two processes at once, with a short grace period."""
    started = LocalLauncher(str(uuid4()), at_once=2, grace=1)
    yield started
    started.close()


def command(name: str, *argv: str) -> JobRequest:
    return JobRequest(JobName(name), [(name, {})], command=argv)


def wait_for(
    launcher: LocalLauncher, name: str, is_so: Callable[[JobStatus], bool], seconds: float = 30
) -> JobStatus:
    """Follow the changes until a job stands as it should."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        launcher.changes(0.5)
        status = launcher.status(JobName(name))
        if status is not None and is_so(status):
            return status
    raise AssertionError(launcher.status(JobName(name)))


def has_ended(status: JobStatus) -> bool:
    return status.phase is Phase.ENDED


def is_running(status: JobStatus) -> bool:
    return status.phase is Phase.RUNNING


def test_a_command_runs_once(launcher: LocalLauncher, tmp_path: Path) -> None:
    """Its output is in its directory, and the same name starts nothing more."""
    request = command("it's", "sh", "-c", f"echo ran >> '{tmp_path}/ran'; echo said")
    launcher.submit([request, request])
    status = wait_for(launcher, "it's", has_ended)
    launcher.submit([request])
    assert status.has_succeeded
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert (Path(launcher.directory(request.job)) / "stdout").read_text() == "said\n"
    assert Path(launcher.directory(request.job)).stat().st_mode & 0o777 == 0o700


def test_a_failure_has_its_code_and_last_words(launcher: LocalLauncher) -> None:
    """Killed ones have the signal, and one that is not there says so."""
    launcher.submit(
        [
            command("fails", "sh", "-c", "echo why >&2; exit 3"),
            command("killed", "sh", "-c", "kill -9 $$"),
            command("absent", "/no/such"),
        ]
    )
    fails = wait_for(launcher, "fails", has_ended)
    assert (fails.state, fails.exit_code, fails.message) == ("FAILED", 3, "why")
    assert wait_for(launcher, "killed", has_ended).signal == signal.SIGKILL
    assert wait_for(launcher, "absent", has_ended).message == "/no/such: No such file or directory"


def test_no_more_at_once_than_told(launcher: LocalLauncher) -> None:
    """The others wait, and one that is cancelled there is never started."""
    launcher.submit([command(name, "sleep", "600") for name in "abc"])
    running = wait_for(launcher, "a", is_running)
    wait_for(launcher, "b", is_running)
    assert running.job_id is not None
    process = psutil.Process(int(running.job_id.split()[1]))
    poll(lambda: process.name() == "sleep")
    waiting = launcher.status(JobName("c"))
    assert waiting is not None
    assert waiting.phase is Phase.WAITING
    launcher.cancel([JobName("c")])
    assert wait_for(launcher, "c", has_ended).started_at is None
    launcher.cancel([JobName("a")])
    cancelled = wait_for(launcher, "a", has_ended)
    assert (cancelled.state, cancelled.signal) == ("CANCELLED", signal.SIGINT)


@pytest.mark.parametrize(
    ("told", "cpus"), [("4", 4), ("72(x2),36", 180), ("1(x10)", 10), ("", cores())]
)
def test_an_allocation_has_the_cpus_of_all_its_nodes(told: str, cpus: int) -> None:
    """Without one, this process has its cores."""
    assert cpus_of_allocation({"SLURM_JOB_CPUS_PER_NODE": told} if told else {}) == cpus


def test_steps_of_srun_are_not_bounded_by_this_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run on any node of the allocation, and a process beside them all the same."""
    monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", "1(x2)")
    launcher = LocalLauncher(str(uuid4()), at_once=1, grace=1)
    launcher.start(
        [
            *((command(name, "sleep", "600"), ("env",)) for name in "abc"),
            *((command(name, "sleep", "600"), ()) for name in "de"),
        ]
    )
    for name in ("a", "b", "d"):
        wait_for(launcher, name, is_running)
    waiting = [launcher.status(JobName(name)) for name in "ce"]
    assert [each and each.phase for each in waiting] == [Phase.WAITING] * 2
    launcher.cancel([JobName(name) for name in "abcde"])
    launcher.close()


def test_what_minds_no_signal_is_killed(launcher: LocalLauncher) -> None:
    """With all that it has started, when the grace period is over."""
    launcher.submit([command("deaf", "sh", "-c", "trap '' INT TERM; sleep 600 & wait; wait")])
    status = wait_for(launcher, "deaf", is_running)
    assert status.job_id is not None
    process = psutil.Process(int(status.job_id.split()[1]))
    children = poll(lambda: process.children(recursive=True))
    launcher.cancel([JobName("deaf")])
    assert wait_for(launcher, "deaf", has_ended).signal == signal.SIGKILL
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children)


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    """Also when it is killed, and can do nothing about it."""
    code = f"""
import time
from dagster_hpc.jobs import *
from dagster_hpc.launchers.local import LocalLauncher
launcher = LocalLauncher({str(uuid4())!r})
script = "echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 600"
launcher.submit([JobRequest(JobName("a"), [("a", {{}})], command=["sh", "-c", script])])
time.sleep(600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    try:
        child = psutil.Process(int(poll(lambda: text_of(tmp_path / "pid"))))
    finally:
        parent.kill()
        parent.wait()
    assert poll(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def poll(look: Callable[[], Found], seconds: float = 30) -> Found:
    """Look until there is something."""
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.02)
    assert found
    return found
