"""Code servers on the login node and several in one job, beside those with a job of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack, example_location
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.inspection.status import read_status
from hpc_agent.store.selection import EVERYTHING
from tests.e2e.conftest import running_stack

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(600)]

PACKED = ("example", "second", "third")
LOGIN = "at_the_door"


@pytest.fixture(scope="module")
def stack(on_slurm: ClusterChoice) -> Iterator[Stack]:
    """A stack with packs of two servers, and one location on the login node."""
    settings: dict[str, Any] = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "code_servers": {
            "placement": "packed",
            "packed": {"servers_per_job": 2, "idle_seconds": 5},
        },
        "locations": {LOGIN: {"code_server_placement": "login"}},
    }
    with running_stack(on_slurm, relay={"bind": "127.0.0.1"}, **settings) as started:
        deploy(started)
        yield started


def deploy(stack: Stack, **replaced: Any) -> None:
    """Deploy all locations and wait until they are loaded."""
    stack.deploy({name: example_location() for name in (*PACKED, LOGIN)} | replaced)
    for name in (*PACKED, LOGIN):
        stack.wait_loaded(name)


def server_of(stack: Stack, location: str) -> dict[str, Any]:
    """Return the job row of the server that serves a location."""
    for server in read_status(stack.config).code_servers:
        if server["location"] == location and server["status"] == "serving":
            rows = read_jobs(stack.config, EVERYTHING)
            return next(row for row in rows if row["key"] == server["key"])
    raise AssertionError(f"nothing serves {location}")


def live_packs(stack: Stack) -> list[dict[str, Any]]:
    """Return the packs whose jobs run."""
    rows = read_jobs(stack.config, EVERYTHING)
    return [row for row in rows if row["kind"] == "pack" and row["phase"] == "running"]


def gives_schedules(stack: Stack, location: str) -> bool:
    """Whether a location's own server answers: a schedule is evaluated in it."""
    answer = stack.webserver.query(
        """mutation ($schedule: ScheduleSelector!) {
          scheduleDryRun(selectorData: $schedule, timestamp: 1764000000) {
            ... on DryRunInstigationTick { evaluationResult { error { message } } } }
        }""",
        {
            "schedule": {
                "repositoryLocationName": location,
                "repositoryName": "__repository__",
                "scheduleName": "every_morning",
            }
        },
    )["scheduleDryRun"]
    return bool(answer and answer["evaluationResult"]["error"] is None)


def process_of(key: str) -> psutil.Process:
    """Return the `dagster api grpc` process of a server, by the token in its environment."""
    for process in psutil.process_iter(["cmdline"]):
        try:
            token = process.environ().get("HPC_AGENT_JOB_TOKEN", "")
        except (psutil.Error, OSError):
            continue
        if token.startswith(f"{key}:") and "grpc" in (process.info["cmdline"] or []):
            return process
    raise AssertionError(f"no process of {key}")


def test_servers_share_jobs_up_to_the_limit(stack: Stack) -> None:
    """Three servers are two jobs, and each answers for itself."""
    jobs = [server_of(stack, location)["job_id"] for location in PACKED]
    assert len(set(jobs)) == 2
    assert {pack["job_id"] for pack in live_packs(stack)} == set(jobs)
    assert all(gives_schedules(stack, location) for location in PACKED)


def test_run_of_a_packed_location_succeeds(stack: Stack) -> None:
    """Runs are jobs of their own as ever."""
    run_id = stack.webserver.launch("second", "weather_job")
    assert stack.wait_finished(run_id) == "SUCCESS"


def test_crash_of_a_server_leaves_its_neighbour_alone(stack: Stack) -> None:
    """The one that died is replaced; the other keeps its process."""
    by_job: dict[str, list[dict[str, Any]]] = {}
    for location in PACKED:
        server = server_of(stack, location)
        by_job.setdefault(server["job_id"], []).append(server)
    victim, neighbour = next(pair for pair in by_job.values() if len(pair) == 2)
    pid = process_of(neighbour["key"]).pid
    os.kill(process_of(victim["key"]).pid, signal.SIGKILL)

    def is_replaced() -> bool:
        rows = read_status(stack.config).code_servers
        mine = [row for row in rows if row["location"] == victim["location"]]
        return any(row["status"] == "serving" and row["key"] != victim["key"] for row in mine)

    wait_for("the server is not replaced", is_replaced, seconds=120, alive=[stack.agent])
    assert server_of(stack, neighbour["location"])["key"] == neighbour["key"]
    assert process_of(neighbour["key"]).pid == pid
    assert gives_schedules(stack, victim["location"])


def test_server_on_the_login_node_is_adopted_after_a_restart(stack: Stack) -> None:
    """It is a process of this machine that outlives the agent, and answers."""
    before = server_of(stack, LOGIN)
    assert before["job_id"].startswith("local-")
    assert "login node" in before["description"]
    process = process_of(before["key"])
    assert process.nice() == 10
    stack.agent.kill()
    stack.start_agent()
    wait_for(
        "the server does not answer", lambda: gives_schedules(stack, LOGIN), seconds=60, alive=[]
    )
    assert server_of(stack, LOGIN)["key"] == before["key"]
    assert process.is_running()


def test_pack_that_becomes_empty_ends(stack: Stack) -> None:
    """What nobody needs any more gives its resources back."""
    stack.deploy({"example": example_location()}, prune=True)
    wait_for(
        "the empty pack goes on",
        lambda: len(live_packs(stack)) == 1,
        seconds=120,
        alive=[stack.agent],
    )
    assert gives_schedules(stack, "example")
