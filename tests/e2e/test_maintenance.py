"""A control plane in maintenance, and what operators ask of an agent: nothing is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.store.selection import EVERYTHING
from tests.e2e.conftest import running_stack
from tests.e2e.test_runs import nap, wait_running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

LOCAL = ClusterChoice(kind="local", version="", found="", slurm_conf=None)
ONCE = ("RunStartEvent", "ExecutionStepStartEvent", "ExecutionStepSuccessEvent", "RunSuccessEvent")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack on the local scheduler."""
    with running_stack(LOCAL, compute_logs={"enabled": False}) as started:
        yield started


def maintenance(stack: Stack, *arguments: str) -> None:
    """Turn the switch as an operator does."""
    home = str(stack.directories.control_plane)
    stack.run_command("control-plane", "maintenance", *arguments, "--home", home)


def wait_logged(stack: Stack, words: str, since: int) -> None:
    """Wait until the agent's log says something after a position."""
    wait_for(
        f"the agent does not say {words!r}",
        lambda: words in stack.agent.log.read_bytes()[since:].decode(),
        seconds=120,
        alive=[stack.agent, stack.control_plane],
    )


def phase_of(stack: Stack, run_id: str) -> str:
    """Return where the agent has the job of a run."""
    jobs = read_jobs(stack.config, EVERYTHING)
    return next(str(job["phase"]) for job in jobs if job["run_id"] == run_id)


def test_run_that_ends_in_maintenance_is_told_of_once_afterwards(stack: Stack) -> None:
    """Its worker neither waits nor fails; its events come when the control plane takes them."""
    server = stack.job_of(location="example")["key"]
    run_id = nap(stack, 10)
    wait_running(stack, run_id)
    since = stack.agent.log.stat().st_size

    maintenance(stack, "on", "--message", "moving disks")
    wait_logged(stack, "the control plane is in maintenance: moving disks", since)
    wait_for(
        "the run's job does not end",
        lambda: phase_of(stack, run_id) == "ended",
        seconds=120,
        alive=[stack.agent],
    )
    assert stack.webserver.status(run_id) == "STARTED"

    back = stack.agent.log.stat().st_size
    maintenance(stack, "off")
    assert stack.wait_finished(run_id) == "SUCCESS"
    wait_logged(stack, "works again", back)

    wait_for(
        "the end of the job is not told",
        lambda: any(
            "ended: COMPLETED" in str(event.get("message"))
            for event in stack.webserver.events(run_id)
        ),
        seconds=60,
    )
    events = stack.webserver.events(run_id)
    types = Counter(event["__typename"] for event in events)
    assert {name: types[name] for name in ONCE} == dict.fromkeys(ONCE, 1)
    told = Counter((e["__typename"], e["timestamp"], e.get("message")) for e in events)
    assert [event for event, times in told.items() if times > 1] == []
    assert stack.job_of(location="example")["key"] == server


def test_agent_serves_as_before_when_maintenance_is_over(stack: Stack) -> None:
    """The next run is launched without a restart of anything."""
    stack.wait_loaded("example")
    assert stack.wait_finished(nap(stack, 1)) == "SUCCESS"


def test_running_control_plane_is_backed_up_and_restored(stack: Stack, tmp_path: Path) -> None:
    """Its runs and their events are in the copy."""
    run_id = nap(stack, 1)
    assert stack.wait_finished(run_id) == "SUCCESS"
    archive, back = str(tmp_path / "b.tar.gz"), tmp_path / "back"
    home = str(stack.directories.control_plane)
    stack.run_command("control-plane", "backup", archive, "--home", home)
    stack.run_command("control-plane", "restore", archive, "--home", str(back))
    with DagsterInstance.from_config(str(back)) as copy:
        run = copy.get_run_by_id(run_id)
        assert run is not None
        assert run.status is DagsterRunStatus.SUCCESS
        assert copy.all_logs(run_id)
    tokens = ("control-plane", "token", "list", "--json", "--home")
    assert stack.run_command(*tokens, str(back)) == stack.run_command(*tokens, home)


def test_operator_holds_a_location_back_ends_a_run_and_drains_the_agent(stack: Stack) -> None:
    """By the commands, as the cluster's own people do it; last, since the agent stops."""

    def operate(*arguments: str) -> str:
        return stack.run_command(*arguments, "--config", str(stack.directories.agent_yaml))

    operate("pause", "example")
    held = nap(stack, 1)
    wait_for(
        "the run's log does not say that its location is paused",
        lambda: any(
            "is paused by an operator" in str(event.get("message"))
            for event in stack.webserver.events(held)
        ),
        seconds=90,
    )
    operate("resume", "example")
    assert stack.wait_finished(held) == "SUCCESS"

    unwanted = nap(stack, 600)
    wait_running(stack, unwanted)
    assert "is asked to end" in operate("cancel", unwanted[:8], "--yes")
    assert stack.wait_finished(unwanted) == "CANCELED"
    assert "hpc-agent cancel" in str(stack.webserver.events(unwanted))

    agent = stack.agent.process
    assert agent is not None
    last = nap(stack, 5)
    wait_running(stack, last)
    assert "1 runs" in operate("drain", "--stop")
    wait_for(
        "the agent does not stop when it has drained",
        lambda: agent.poll() is not None,
        seconds=120,
    )
    assert agent.returncode == 0
    assert stack.webserver.status(last) == "SUCCESS"
