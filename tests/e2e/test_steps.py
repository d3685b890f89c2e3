"""Steps and commands as jobs, on a real Slurm of two nodes: everything that a run asks for."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from hpc_agent.demo.stack import Stack
from tests.cluster import SlurmCluster
from tests.control_plane.running import poll
from tests.e2e.conftest import choice_of, empty_stack
from tests.e2e.test_user_code import location, messages
from tests.preemption import slurm, start_requeued

METADATA = """
query { assetOrError(assetKey: {path: ["solved"]}) { ... on Asset {
  assetMaterializations(limit: 1) { metadataEntries { label } }
} } }
"""
pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def stack(slurm_cluster: SlurmCluster) -> Iterator[Stack]:
    """A stack with one location, whose code server takes no node."""
    bin_dir = slurm_cluster.environment["PATH"].partition(os.pathsep)[0]
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20, "bin_dir": bin_dir},
        # srun, which user code calls, is that of the cluster too.
        "environment": {"setup": [f'export PATH={shlex.quote(bin_dir)}:"$PATH"']},
        "relay": {"bind": "127.0.0.1"},
        "runs": {"grace_seconds": 5},
        "code_servers": {"placement": "login"},
    }
    with empty_stack(choice_of(slurm_cluster), **settings) as started:
        started.deploy({"placed": location("placed")})
        started.wait_loaded("placed")
        yield started


@pytest.fixture(scope="module")
def runs(stack: Stack) -> dict[str, str]:
    """The runs of this file that need no help, started at once: few enough for two nodes."""
    launch = stack.webserver.launch
    return {"endless": launch("placed", "endless"), "dying": launch("placed", "dying")} | {
        name: launch("placed", "__ASSET_JOB", assets=[name])
        for name in ("solved", "greeted", "count")
    }


def running_step(stack: Stack, run_id: str) -> dict[str, Any]:
    """Wait until the one step of a run executes, and return its job."""
    poll(lambda: "ExecutionStepStartEvent" in kinds(stack, run_id), "its step runs", 120)
    (step,) = stack.jobs_of_steps(run_id)
    return step


def start_now(cluster: SlurmCluster, job_id: str) -> None:
    """Let a requeued job begin soon, once it waits."""
    look = "squeue", "--noheader", f"--jobs={job_id}", "--format=%T"
    poll(lambda: slurm(cluster, *look) == "PENDING", "the job waits again", 60)
    start_requeued(cluster, job_id)


def kinds(stack: Stack, run_id: str) -> list[str]:
    return [event["__typename"] for event in stack.webserver.events(run_id)]


def printed(stack: Stack, run_id: str) -> str:
    """Return what the processes of a run have printed."""
    logs = stack.webserver.compute_logs(run_id)
    return "".join(each.get("stdout") or "" for each in logs.values())


def test_command_reports_by_pipes_and_is_printed(stack: Stack, runs: dict[str, str]) -> None:
    """A program of bash, with what it prints in the log of its op."""
    assert stack.wait_finished(runs["solved"]) == "SUCCESS"
    assert "solving" in messages(stack, runs["solved"])
    (made,) = stack.webserver.query(METADATA)["assetOrError"]["assetMaterializations"]
    assert {"label": "residual"} in made["metadataEntries"]
    poll(lambda: "printed by bash" in printed(stack, runs["solved"]), "its output", 30)


def test_program_runs_on_two_nodes(stack: Stack, runs: dict[str, str]) -> None:
    """A process for each task, started by srun."""
    assert stack.wait_finished(runs["greeted"]) == "SUCCESS"
    (step,) = stack.jobs_of_steps(runs["greeted"])
    text = (stack.config.work_dir / "jobs" / step["key"] / "stdout").read_text()
    assert set(text.splitlines()) == {"hello from c1", "hello from c2"}


def test_script_is_an_asset(stack: Stack, runs: dict[str, str]) -> None:
    """With the options that it has itself."""
    assert stack.wait_finished(runs["count"]) == "SUCCESS"
    (step,) = stack.jobs_of_steps(runs["count"])
    script = (stack.config.work_dir / "jobs" / step["key"] / "job.sh").read_text()
    assert "--mem=100M" in script
    assert re.search(r"--time=\S*5", script)


def test_step_that_dies_fails_its_run_in_words(stack: Stack, runs: dict[str, str]) -> None:
    """What it has printed is kept."""
    assert stack.wait_finished(runs["dying"]) == "FAILURE"
    told = json.dumps(stack.webserver.events(runs["dying"]))
    assert "ended before the step did (state FAILED, signal 9)" in told
    poll(lambda: "about to die" in printed(stack, runs["dying"]), "its output", 30)


def test_terminated_run_leaves_no_step(stack: Stack, runs: dict[str, str]) -> None:
    """Its step is told, and Slurm has no job of it any more."""
    run_id = runs["endless"]
    running_step(stack, run_id)
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id, seconds=90) == "CANCELED"
    poll(lambda: stack.jobs_of_steps(run_id)[0]["phase"] == "ended", "its step ends", 60)


def test_each_step_runs_in_its_place(stack: Stack) -> None:
    """In the run's own job, in the tasks of an array, and on two nodes."""
    run_id = stack.webserver.launch("placed", "everywhere")
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    told = "\n".join(messages(stack, run_id))
    own = str(stack.job_of(run_id=run_id)["job_id"])
    assert f"numbers in {own}" in told
    assert re.search(rf"added in {own} step [0-9]+", told)
    rows = {row["step"]: row["job_id"] for row in stack.jobs_of_steps(run_id)}
    arrays = {rows[f"squared[{number}]"].partition("_")[0] for number in (1, 2, 3, 4)}
    assert len(arrays) == 1
    assert arrays != {own}
    assert "total 30 on ['c1', 'c2']" in told
    assert len(rows) == len(stack.jobs_of_steps(run_id)) == 5


def test_run_worker_and_agent_die_and_nothing_is_lost_or_doubled(
    stack: Stack, slurm_cluster: SlurmCluster
) -> None:
    """Slurm requeues the run workers while the agent is dead; step and command go on meanwhile."""
    run_id, telling = (stack.webserver.launch("placed", job) for job in ("outlived", "telling"))
    step = running_step(stack, run_id)
    poll(lambda: "told 5" in messages(stack, telling), "its command tells", 120)
    jobs = [stack.job_of(run_id=each)["job_id"] for each in (run_id, telling)]
    stack.agent.kill()
    for job in jobs:
        slurm(slurm_cluster, "scontrol", "requeue", job)
    stack.start_agent()
    for job in jobs:
        start_now(slurm_cluster, job)
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    assert stack.wait_finished(telling) == "SUCCESS", messages(stack, telling)
    said = [text for text in messages(stack, telling) if text.startswith("told ")]
    assert said == [f"told {number}" for number in range(1, 51)]
    assert kinds(stack, telling).count("MaterializationEvent") == 1
    assert len(stack.jobs_of_steps(telling)) == 1
    assert "after 1" in messages(stack, run_id)
    traces = stack.config.artifacts_of("prod", "placed") / "traces"
    assert traces.read_text().splitlines() == [f"slow {run_id}"]
    assert Counter(kinds(stack, run_id))["ExecutionStepSuccessEvent"] == 2
    assert step["key"] in {row["key"] for row in stack.jobs_of_steps(run_id)}
    assert len(stack.jobs_of_steps(run_id)) == 2
