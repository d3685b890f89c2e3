"""Steps and commands as jobs, on a real Slurm of two nodes: everything that a run asks for."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from hpc_agent.demo.stack import Stack
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.store.selection import EVERYTHING
from tests.cluster import SlurmCluster
from tests.control_plane.running import poll
from tests.e2e.conftest import choice_of, running_stack
from tests.e2e.test_user_code import location, messages

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def stack(slurm_cluster: SlurmCluster) -> Iterator[Stack]:
    """A stack with one location, whose code server takes no node."""
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "relay": {"bind": "127.0.0.1"},
        "runs": {"grace_seconds": 5},
        "code_servers": {"placement": "login"},
    }
    with running_stack(choice_of(slurm_cluster), **settings) as started:
        started.deploy({"placed": location("placed")})
        started.wait_loaded("placed")
        yield started


@pytest.fixture(scope="module")
def runs(stack: Stack) -> dict[str, str]:
    """All runs of this file, started at once."""
    launch = stack.webserver.launch
    jobs = ("outlived", "endless", "everywhere", "dying")
    assets = ("solved", "greeted", "counted")
    return {name: launch("placed", name) for name in jobs} | {
        name: launch("placed", "__ASSET_JOB", assets=[name]) for name in assets
    }


def steps_of(stack: Stack, run_id: str) -> list[dict[str, object]]:
    """Return the jobs that a run has asked for."""
    rows = read_jobs(stack.config, EVERYTHING)
    return [row for row in rows if row["run_id"] == run_id and row["kind"] == "step"]


def test_run_worker_dies_and_its_step_goes_on(stack: Stack, runs: dict[str, str]) -> None:
    """kill -9: the next run worker finds the step's job again, and starts it no second time."""
    run_id = runs["outlived"]
    poll(
        lambda: any(row["phase"] == "running" for row in steps_of(stack, run_id)),
        "its step runs",
        90,
    )
    job = stack.job_of(run_id=run_id)
    directory = stack.config.work_dir / "jobs" / str(job["key"])
    os.kill(json.loads((directory / "start.json").read_text())["pid"], signal.SIGKILL)
    assert stack.wait_finished(run_id) in {"SUCCESS", "FAILURE"}


def test_each_step_runs_in_its_place(stack: Stack, runs: dict[str, str]) -> None:
    """In the run's own job, in the tasks of an array, and on two nodes."""
    run_id = runs["everywhere"]
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    told = "\n".join(messages(stack, run_id))
    own = str(stack.job_of(run_id=run_id)["job_id"])
    assert re.search(rf"numbers in {own}\b", told)
    assert re.search(rf"added in {own} step [0-9]+", told)
    squares = set(re.findall(r"squared in ([0-9]+)", told))
    assert len(squares) == 4
    assert own not in squares
    assert re.search(r"total 30 on \['\w+', '\w+'\]", told)
    names = Counter(str(row["step"]) for row in steps_of(stack, run_id))
    assert set(names.values()) == {1}
    assert len(names) == 5
