"""Code servers hand over before their time limit, and are replaced when their node goes."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from hpc_agent.demo.webserver import Webserver
from hpc_agent.errors import HpcAgentError
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.store.selection import EVERYTHING
from tests.cluster import SlurmCluster
from tests.e2e.conftest import running_stack

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(600)]

CALLERS = 3
# There is always a call on its way, and the machine has time for something else.
PAUSE_SECONDS = 0.05
EVALUATE = """mutation ($schedule: ScheduleSelector!) {
  scheduleDryRun(selectorData: $schedule, timestamp: 1764000000) {
    __typename
    ... on DryRunInstigationTick { evaluationResult { error { message } } }
    ... on PythonError { message }
  }
}"""
SCHEDULE = {
    "repositoryLocationName": "example",
    "repositoryName": "__repository__",
    "scheduleName": "every_morning",
}


@dataclass(slots=True)
class Load:
    """What callers found: how many calls were answered, and what went wrong with the others."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def under_load(known: Webserver) -> Iterator[Load]:
    """Let several callers evaluate a schedule in the code server again and again."""
    load, stop = Load(), threading.Event()

    def call() -> None:
        webserver = Webserver(known.url, token=known.token, ca=known.ca)
        while not stop.wait(PAUSE_SECONDS):
            try:
                answer = webserver.query(EVALUATE, {"schedule": SCHEDULE})["scheduleDryRun"]
            except HpcAgentError as error:
                load.failures.append(str(error))
                continue
            result = answer.get("evaluationResult")
            if result is None or result["error"] is not None:
                load.failures.append(str(answer))
            load.answered += 1
        webserver.close()

    threads = [threading.Thread(target=call, name=f"caller {n}") for n in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def servers(stack: Stack) -> list[dict[str, str]]:
    """Return the jobs of the location's code servers, oldest first."""
    jobs = read_jobs(stack.config, EVERYTHING)
    return [job for job in reversed(jobs) if job["kind"] == "code_server"]


@pytest.fixture(scope="module")
def short_lived(on_slurm: ClusterChoice) -> Iterator[Stack]:
    """A stack whose code servers may run for two minutes."""
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "code_servers": {"options": {"time": "2"}},
    }
    with running_stack(on_slurm, relay={"bind": "127.0.0.1"}, **settings) as started:
        yield started


def test_no_call_fails_while_a_server_hands_over(short_lived: Stack) -> None:
    """A successor takes over under load, and the server does not come to the end of its time."""
    stack = short_lived

    def has_handed_over() -> bool:
        return any(job["phase"] == "ended" for job in servers(stack))

    with under_load(stack.webserver) as load:
        wait_for(
            "the code server does not hand over",
            has_handed_over,
            seconds=240,
            alive=[stack.agent, stack.control_plane],
        )
    assert load.failures == []
    assert load.answered > 100
    states = [job["state"] for job in servers(stack) if job["phase"] == "ended"]
    assert set(states) <= {"CANCELLED", "COMPLETED"}, states


def test_no_call_fails_when_a_node_fails(short_lived: Stack, slurm_cluster: SlurmCluster) -> None:
    """Calls that the server takes along, and those that find none, are answered by the next one."""
    stack = short_lived
    before = stack.job_of(location="example")

    def is_replaced() -> bool:
        now = {job["key"]: job["phase"] for job in servers(stack)}
        return now[before["key"]] == "ended" and "running" in now.values()

    try:
        with under_load(stack.webserver) as load:
            set_node(slurm_cluster, before["nodes"], "down")
            wait_for(
                "the server on the failed node is not replaced",
                is_replaced,
                seconds=90,
                alive=[stack.agent, stack.control_plane],
            )
            answered = load.answered
            wait_for("no call is answered", lambda: load.answered > answered, seconds=60, alive=[])
    finally:
        set_node(slurm_cluster, before["nodes"], "resume")
    assert load.failures == []
    ended = next(job for job in servers(stack) if job["key"] == before["key"])
    assert ended["state"] == "NODE_FAIL"


def set_node(cluster: SlurmCluster, node: str, state: str) -> None:
    """Set a node's state, and wait until Slurm has it usable again after `resume`."""
    argv = ["scontrol", "update", f"nodename={node}", f"state={state}", "reason=test"]
    # A node that has come back by itself (ReturnToService=2) cannot be resumed.
    subprocess.run(argv, env=dict(cluster.environment), check=state != "resume")
    deadline = time.monotonic() + 60
    while state == "resume" and time.monotonic() < deadline:
        shown = subprocess.run(
            ["sinfo", "--noheader", f"--nodes={node}", "--format=%t"],
            env=dict(cluster.environment),
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        if shown and shown[0] in {"idle", "mix", "alloc"}:
            return
        time.sleep(0.5)
