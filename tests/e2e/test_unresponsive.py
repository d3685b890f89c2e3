"""A code server whose process lives and answers nothing is replaced without a human."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.store.selection import EVERYTHING
from tests.e2e.conftest import running_stack
from tests.e2e.test_runs import nap

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

LOCAL = ClusterChoice(kind="local", version="", found="", slurm_conf=None)


@pytest.fixture(scope="module", params=["local", pytest.param("slurm", marks=pytest.mark.slurm)])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack whose code servers may be silent for six seconds."""
    cluster = LOCAL if request.param == "local" else request.getfixturevalue("on_slurm")
    settings = {
        "code_servers": {"unresponsive_timeout_seconds": 6},
        "compute_logs": {"enabled": False},
        "relay": {"bind": "127.0.0.1"},
        "runs": {"grace_seconds": 2},
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
    }
    with running_stack(cluster, **settings) as started:
        yield started


def processes_below(stack: Stack, key: str) -> list[psutil.Process]:
    """Return the processes of the code server of a job, without its node program."""
    directory = str(stack.config.work_dir / "jobs" / key)
    return [
        child
        for process in psutil.process_iter(["cmdline"])
        if any(argument.startswith(directory) for argument in process.info["cmdline"] or [])
        for child in process.children(recursive=True)
        if "grpc" in child.cmdline()
    ]


def test_stopped_code_server_is_replaced(stack: Stack) -> None:
    """The location stays loaded, the old job ends, a run goes through the new server."""
    old = stack.job_of(location="example")["key"]
    stopped = processes_below(stack, old)
    assert stopped
    for process in stopped:
        process.suspend()

    def successor() -> bool:
        jobs = read_jobs(stack.config, EVERYTHING)
        return any(job["location"] == "example" and job["key"] != old for job in jobs)

    wait_for("no new server is started", successor, seconds=90, alive=[stack.agent])
    log = stack.agent.log.read_text()
    assert "prod/example: its code server has not answered for" in log
    assert "and is replaced" in log

    def old_is_over() -> bool:
        jobs = read_jobs(stack.config, EVERYTHING)
        return any(job["key"] == old and job["phase"] == "ended" for job in jobs)

    wait_for("the old job does not end", old_is_over, seconds=60, alive=[stack.agent])
    assert not any(process.is_running() for process in stopped)
    stack.wait_loaded("example")
    run_id = nap(stack, 1)
    assert stack.wait_finished(run_id) == "SUCCESS"
