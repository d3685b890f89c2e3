"""Runs as Slurm jobs, from the webserver's own API to the compute node and back."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from hpc_agent.demo.facts import gather
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from hpc_agent.errors import HpcAgentError
from tests.cluster import SlurmCluster

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]

FAR_AWAY = {"dagster-hpc/begin": "now+1hour"}
ORDINARY_TERMINATION = (
    "query ($run: ID!) { runOrError(runId: $run) "
    "{ ... on Run { canTerminate hasTerminatePermission } } }"
)


def engine_lines(stack: Stack, run_id: str) -> list[str]:
    """What the run's log says of its job."""
    return [
        str(event["message"])
        for event in stack.webserver.events(run_id)
        if event["__typename"] == "EngineEvent"
    ]


def slurm_job(cluster: SlurmCluster, job_id: str) -> str:
    """Return what the controller says of a job."""
    shown = subprocess.run(
        ["scontrol", "show", "job", job_id],
        env=dict(cluster.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout


def scancel(cluster: SlurmCluster, *arguments: str) -> None:
    """Cancel or signal a job behind the agent's back."""
    subprocess.run(["scancel", *arguments], env=dict(cluster.environment), check=True)


def nap(stack: Stack, seconds: int, **tags: str) -> str:
    """Launch a run that sleeps."""
    config = {"ops": {"sleep_and_tell": {"config": {"seconds": seconds}}}}
    return stack.webserver.launch("example", "sleepy_job", config=config, tags=tags)


def wait_running(stack: Stack, run_id: str) -> dict[str, Any]:
    """Wait until a run executes its first step, and return its job."""
    wait_for(
        f"run {run_id} does not start",
        lambda: any(
            event["__typename"] == "ExecutionStepStartEvent"
            for event in stack.webserver.events(run_id)
        ),
        seconds=90,
        alive=[stack.agent, stack.control_plane],
    )
    return stack.job_of(run_id=run_id)


def test_run_materializes_assets_as_a_slurm_job(stack: Stack, slurm_cluster: SlurmCluster) -> None:
    """A run from the webserver runs in a job; metadata and compute logs read back through it."""
    run_id = stack.webserver.launch(
        "example", "__ASSET_JOB", tags={"dagster/partition": "2026-01-01"}
    )
    assert stack.wait_finished(run_id) == "SUCCESS"

    facts = gather(stack, run_id, location="example")
    assert facts.succeeded
    assert set(facts.assets) == {"raw_readings", "clean_readings", "summary", "daily_extremes"}
    assert facts.assets["clean_readings"]["dagster/column_schema"] == [
        "station: string",
        "hour: int",
        "celsius: float",
    ]
    assert facts.assets["raw_readings"]["dagster/row_count"] == 72
    assert "| station | mean" in facts.assets["summary"]["report"]
    logs = stack.printed(run_id)
    assert "read 24 hours from" in "".join(streams["stdout"] for streams in logs)
    assert "readings are missing" in "".join(streams["stderr"] for streams in logs)

    assert f"Comment={stack.job_of(run_id=run_id)['key']}" in slurm_job(
        slurm_cluster, facts.run_worker.job_id
    )
    tags = {tag["key"]: tag["value"] for tag in stack.webserver.run(run_id)["tags"]}
    assert tags["dagster-hpc/job-id"] == facts.run_worker.job_id
    assert tags["dagster-hpc/node"] == stack.job_of(run_id=run_id)["nodes"]


def test_slurm_facts_are_in_the_log_of_the_run(stack: Stack) -> None:
    """Submitted, started, ended: a user reads it where the run's other events are."""
    run_id = nap(stack, 1)
    assert stack.wait_finished(run_id) == "SUCCESS"
    job_id = stack.job_of(run_id=run_id)["job_id"]
    wait_for(
        "the end of the job is not told",
        lambda: f"Job {job_id} ended: COMPLETED" in engine_lines(stack, run_id),
        seconds=30,
    )
    lines = engine_lines(stack, run_id)
    assert f"Run worker submitted as Slurm job {job_id}." in lines
    assert any(line.startswith(f"Job {job_id} runs on ") for line in lines)


def test_running_job_is_looked_into(stack: Stack) -> None:
    """From outside: the Python stack of its worker, with the function of the op."""
    run_id = nap(stack, 60)
    wait_running(stack, run_id)
    config = ("--config", str(stack.directories.agent_yaml))
    assert "sleep_and_tell" in stack.run_command("debug", run_id[:8], *config)
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id) == "CANCELED"


def test_compute_logs_grow_while_the_run_goes_on(stack: Stack) -> None:
    """A line printed in the job can be read before the job ends."""
    run_id = nap(stack, 60)
    wait_running(stack, run_id)
    wait_for(
        "no output of the running job arrives",
        lambda: any(logs["stdout"] for logs in stack.webserver.compute_logs(run_id).values()),
        seconds=30,
    )
    assert stack.webserver.status(run_id) == "STARTED"
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id) == "CANCELED"


def test_terminating_a_running_run_cancels_it_by_signal(
    stack: Stack, slurm_cluster: SlurmCluster
) -> None:
    """The run worker closes the run itself, and its job is gone."""
    run_id = nap(stack, 120)
    job = wait_running(stack, run_id)
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id, seconds=60) == "CANCELED"
    wait_for(
        "the job does not end",
        lambda: "JobState=RUNNING" not in slurm_job(slurm_cluster, job["job_id"]),
        seconds=30,
    )
    wait_for(
        "the end of the job is not told",
        lambda: f"Job {job['job_id']} ended: CANCELLED as requested" in engine_lines(stack, run_id),
        seconds=30,
    )
    assert "Termination requested; ending the run's job." in engine_lines(stack, run_id)


def test_terminating_a_pending_run_cancels_its_job(
    stack: Stack, slurm_cluster: SlurmCluster
) -> None:
    """A run whose job waits in the queue is canceled without ever running, by force alone."""
    run_id = nap(stack, 1, **FAR_AWAY)
    job = wait_for(
        "the job is not submitted",
        lambda: _submitted(stack, run_id),
        seconds=60,
    )
    wait_for(
        "the pending reason is not told",
        lambda: any("BeginTime" in line for line in engine_lines(stack, run_id)),
        seconds=30,
    )
    assert stack.webserver.status(run_id) == "STARTING"
    refused = stack.webserver.query(ORDINARY_TERMINATION, {"run": run_id})
    assert refused["runOrError"] == {"canTerminate": False, "hasTerminatePermission": True}
    with pytest.raises(HpcAgentError, match="due to having status STARTING"):
        stack.webserver.terminate(run_id, policy="SAFE_TERMINATE")
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id, seconds=60) == "CANCELED"
    wait_for(
        "the job is not cancelled",
        lambda: "JobState=CANCELLED" in slurm_job(slurm_cluster, job["job_id"]),
        seconds=15,
    )
    assert not any("Started process for run" in line for line in engine_lines(stack, run_id))


def test_unknown_partition_fails_the_run_in_slurms_words(stack: Stack) -> None:
    """What sbatch says is what the user reads."""
    run_id = nap(stack, 1, **{"dagster-hpc/partition": "nowhere"})
    assert stack.wait_finished(run_id, seconds=60) == "FAILURE"
    assert "invalid partition specified: nowhere" in str(stack.webserver.events(run_id))


def test_bad_option_tag_fails_the_run_before_anything_is_submitted(stack: Stack) -> None:
    """A tag that sbatch would not take never reaches a script."""
    run_id = nap(stack, 1, **{"dagster-hpc/mem": "4G; touch /tmp/pwned"})
    assert stack.wait_finished(run_id, seconds=60) == "FAILURE"
    assert "is not a value sbatch takes" in str(stack.webserver.events(run_id))
    assert not any("submitted" in line for line in engine_lines(stack, run_id))


def test_failing_user_code_fails_the_run_and_says_so_once(stack: Stack) -> None:
    """The run's own failure stands; the agent adds how the job ended, and no second failure."""
    run_id = stack.webserver.launch("example", "failing_job")
    assert stack.wait_finished(run_id) == "FAILURE"
    job_id = stack.job_of(run_id=run_id)["job_id"]
    wait_for(
        "the end of the job is not told",
        lambda: any(
            line.startswith(f"Job {job_id} ended: FAILED (exit code 1)")
            for line in engine_lines(stack, run_id)
        ),
        seconds=30,
    )
    failures = [
        event
        for event in stack.webserver.events(run_id)
        if event["__typename"] == "RunFailureEvent"
    ]
    assert len(failures) == 1


def test_job_killed_outright_fails_the_run_that_it_left_open(
    stack: Stack, slurm_cluster: SlurmCluster
) -> None:
    """Nobody on the node can tell any more how the run ended: the agent does."""
    run_id = nap(stack, 120)
    job = wait_running(stack, run_id)
    scancel(slurm_cluster, "--batch", "--signal=KILL", job["job_id"])
    assert stack.wait_finished(run_id, seconds=90) == "FAILURE"
    assert f"Job {job['job_id']} did not finish the run" in str(stack.webserver.events(run_id))


def test_job_cancelled_in_slurm_is_told_as_such(stack: Stack, slurm_cluster: SlurmCluster) -> None:
    """An administrator's scancel ends the run, and the log says who did it."""
    run_id = nap(stack, 120)
    job = wait_running(stack, run_id)
    scancel(slurm_cluster, job["job_id"])
    assert stack.wait_finished(run_id, seconds=90) == "FAILURE"
    wait_for(
        "the reason is not told",
        lambda: any(
            line.startswith(f"Job {job['job_id']} ended: CANCELLED")
            for line in engine_lines(stack, run_id)
        ),
        seconds=60,
    )


def test_agent_restart_disturbs_no_run_and_no_server(stack: Stack) -> None:
    """The agent is killed while a run goes on; the next one adopts the run and the code server."""
    server = stack.job_of(location="example")
    run_id = nap(stack, 15)
    wait_running(stack, run_id)
    stack.agent.kill()
    time.sleep(1)  # some events are written while nobody relays them
    stack.start_agent()
    assert stack.wait_finished(run_id) == "SUCCESS"
    assert stack.job_of(location="example")["job_id"] == server["job_id"]
    second = nap(stack, 1)
    assert stack.wait_finished(second) == "SUCCESS"


def _submitted(stack: Stack, run_id: str) -> dict[str, Any] | None:
    if not any("submitted as" in line for line in engine_lines(stack, run_id)):
        return None
    return stack.job_of(run_id=run_id)
