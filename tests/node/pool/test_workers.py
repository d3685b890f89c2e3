"""Workers of a template are what a job's process is, only that they start at once."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .dagster_runs import DagsterRuns
from .running import Member, RunningPool, is_alive, template, wait_until

Template = dict[str, Any]
_NUMBERS = itertools.count(1)
_HANDLER = """
import atexit, dagster as dg, os
atexit.register(lambda: print(os.getpid(), file=open("ended", "a")))
defs = dg.Definitions()
"""
_WAIT = """
import os, time
print(os.getpid(), flush=True)
while not os.path.exists("go"):
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def warm(pool: RunningPool, code: Path) -> Template:
    """A template that is ready."""
    made = template(code)
    pool.warm(made)
    return made


def start(pool: RunningPool, warm: Template, *words: str, **spec: Any) -> Member:
    """Start a member that does what it is told."""
    return pool.member(next(_NUMBERS), [sys.executable, "-m", "member", *words], warm, **spec)


def test_worker_is_a_process_of_its_own(
    pool: RunningPool, warm: Template, code: Path, tmp_path: Path
) -> None:
    """Session, directory, variables, descriptors, signals and words are the member's."""
    member = start(pool, warm, "exit", "3", environment={"X": "a\nb"}, working_directory="/")
    said = member.said()
    assert said["is_warm"]
    assert said["session"] == said["group"] == said["pid"]
    assert said["argv"] == [str(code / "member.py"), "exit", "3"]
    assert said["directory"] == "/"
    assert said["descriptors"] == [0, 1, 2]
    assert said["open"][0] == "/dev/null"
    assert said["deadly"] == signal.SIGKILL
    assert said["blocked"] == []
    assert len(said["cpus"]) == 1
    variables = said["environment"]
    assert variables["X"] == "a\nb"
    assert variables["HPC_AGENT_JOB_TOKEN"] == f"{member.key}:secret"
    assert variables["SLURM_JOB_ID"] == "17"
    assert variables["SLURM_CPUS_ON_NODE"] == "1"
    record = member.exit_record()
    assert (record["outcome"], record["exit_code"]) == ("exited", 3)
    assert record["stderr_tail"] == "of no consequence\n" == member.stderr
    assert record["max_rss_kb"] > 1000
    assert record["cpu_seconds"] > 0
    assert record["slurm_job_id"] == "17"
    assert record["allocation"]["cpus"] == 1
    wait_until(lambda: pool.events(member) == ["started", "exited"], "its end is not reported")
    assert "warm start" in member.log


def test_workers_have_random_numbers_of_their_own(pool: RunningPool, warm: Template) -> None:
    """Whatever the template had drawn them from."""
    members = [start(pool, warm, "exit", "0") for _ in range(2)]
    drawn = [member.said()["random"] for member in members]
    assert len({number for numbers in drawn for number in numbers}) == 4


def test_worker_may_end_in_any_way(pool: RunningPool, warm: Template) -> None:
    """Exceptions, signals and threads give what an interpreter gives."""
    failed, crashed = start(pool, warm, "fail"), start(pool, warm, "crash")
    threaded = start(pool, warm, "thread")
    assert failed.exit_record()["exit_code"] == 1
    assert "RuntimeError: gone wrong" in failed.stderr
    assert crashed.exit_record()["signal"] == signal.SIGSEGV
    assert threaded.exit_record()["exit_code"] == 0
    assert threaded.stdout.endswith("late\n")


def test_directory_that_is_not_there_is_named(pool: RunningPool, warm: Template) -> None:
    """As for a job."""
    member = start(pool, warm, working_directory="/no/such/directory")
    assert member.exit_record()["exit_code"] == 127
    assert "its working directory /no/such/directory is not there" in member.exit_record()["reason"]


def test_run_finds_the_definitions_made(
    pool: RunningPool, warm: Template, code: Path, tmp_path: Path
) -> None:
    """The file with them was run by the template alone."""
    runs = DagsterRuns(tmp_path / "home", code / "definitions.py", "sums")
    run, argv = runs.command()
    imported = (code / "imported").read_text()
    member = pool.member(next(_NUMBERS), argv, warm)
    assert member.exit_record()["exit_code"] == 0, member.stderr
    assert runs.status(run) == "SUCCESS"
    assert "warm start" in member.log
    assert (code / "imported").read_text() == imported


def test_daemon_of_a_worker_ends_with_it(pool: RunningPool, warm: Template) -> None:
    """It is in no group or session of the worker's."""
    member = start(pool, warm, "daemon")
    assert member.exit_record()["exit_code"] == 0
    daemon = int(member.stdout.splitlines()[1])
    assert not is_alive(daemon)


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_member_is_ended(pool: RunningPool, warm: Template, name: str) -> None:
    """By the signal that the agent says, and no other member is."""
    neighbour, member = start(pool, warm, "stay"), start(pool, warm, "stay")
    worker = member.said()["pid"]
    neighbour.said()
    pool.agent.change(end=[(member.key, name)])
    record = member.exit_record()
    assert (record["outcome"], record["ended_on"]) == ("terminated", f"SIG{name}")
    assert not is_alive(worker)
    assert not neighbour.has_ended
    pool.agent.change(end=[(neighbour.key, "TERM")])
    neighbour.exit_record()


def test_killed_template_takes_no_worker_with_it(
    pool: RunningPool, warm: Template, tmp_path: Path
) -> None:
    """Another comes, and gives workers."""
    go = tmp_path / "go"
    member = start(pool, warm, "wait", str(go))
    member.said()
    killed = pool.told(warm)["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: pool.told(warm)["pid"] != killed and pool.told(warm)["state"] == "ready",
        "no other template",
    )
    assert not member.has_ended
    go.touch()
    assert member.exit_record()["exit_code"] == 0
    assert start(pool, warm, "exit", "0").said()["is_warm"]


def test_killed_guardian_takes_its_worker_alone_with_it(pool: RunningPool, warm: Template) -> None:
    """The member has ended then, and its slot is free."""
    member = start(pool, warm, "stay")
    said = member.said()
    os.kill(said["guardian"], signal.SIGKILL)
    assert member.exit_record()["signal"] == signal.SIGKILL
    wait_until(lambda: not is_alive(said["pid"]), "the worker lives")
    assert start(pool, warm, "exit", "0").exit_record()["exit_code"] == 0


def test_stacks_of_a_worker_are_found(pool: RunningPool, warm: Template) -> None:
    """By its job, as those of other jobs; not those of the template or of a neighbour."""
    member, _ = start(pool, warm, "stay"), start(pool, warm, "stay").said()
    worker = member.said()["pid"]
    argv = [sys.executable, str(pool.program), "--stacks", member.key]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    assert shown.count("==> process") == 2  # with its daemon
    assert f"==> process {worker}: " in shown
    assert "secret" not in shown


def test_killed_slot_program_leaves_nothing(pool: RunningPool, warm: Template) -> None:
    """Its worker is killed, and the agent learns that the member is not held any more."""
    member = start(pool, warm, "stay")
    said = member.said()
    slot = _slot_program(pool, member)
    os.kill(slot, signal.SIGKILL)
    wait_until(lambda: not is_alive(said["pid"]), "the worker lives")
    wait_until(lambda: member.key not in pool.agent.orders.said["held"], "it is held")


def test_drained_template_gives_no_more_workers(
    pool: RunningPool, code: Path, tmp_path: Path
) -> None:
    """Its last worker goes on; code that has changed has another template."""
    old = template(code)
    pid = pool.warm(old)["pid"]
    go = tmp_path / "go"
    member = start(pool, old, "wait", str(go))
    member.said()
    pool.agent.change(templates=[])
    wait_until(lambda: not is_alive(pid), "the template lives")
    wait_until(lambda: not pool.told(old), "the template is told of")
    assert not member.has_ended
    go.touch()
    assert member.exit_record()["exit_code"] == 0


def test_exit_handlers_are_run_by_workers_alone(pool: RunningPool, tmp_path: Path) -> None:
    """A drained template would take away what its workers still use."""
    (tmp_path / "definitions.py").write_text(_HANDLER)
    (tmp_path / "member.py").write_text(_WAIT)
    made = template(tmp_path)
    pid = pool.warm(made)["pid"]
    argv = [sys.executable, "-m", "member"]
    member = pool.member(next(_NUMBERS), argv, made, working_directory=str(tmp_path))
    wait_until(lambda: member.stdout, "it does not start")
    pool.agent.change(templates=[])
    wait_until(lambda: not is_alive(pid), "the template lives")
    (tmp_path / "go").touch()
    assert member.exit_record()["exit_code"] == 0
    assert "warm start" in member.log
    assert (tmp_path / "ended").read_text() == member.stdout


def _slot_program(pool: RunningPool, member: Member) -> int:
    """Return the process of a member's slot program, from the supervisor's log."""
    words = f"member {member.key} is process "
    text = (pool.root / "log").read_text()
    return int(text.rpartition(words)[2].split()[0])
