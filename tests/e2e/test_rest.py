"""The agent by slurmrestd: no Slurm command, everything else as ever."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from tests.cluster import SlurmCluster
from tests.e2e.conftest import running_stack
from tests.e2e.test_runs import nap, wait_running

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def token_file(slurm_cluster_rest: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token that is good for as long as the tests take."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.touch(mode=0o600)
    done = subprocess.run(
        ["scontrol", "token", "lifespan=3600"],
        env=dict(slurm_cluster_rest.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    file.write_text(done.stdout)
    return file


@pytest.fixture(scope="module")
def stack(slurm_cluster_rest: SlurmCluster, token_file: Path) -> Iterator[Stack]:
    """A stack whose agent knows a URL, and no slurm.conf."""
    cluster = ClusterChoice(
        kind="slurm", version=slurm_cluster_rest.version, found=slurm_cluster_rest.found
    )
    scheduler = {
        "transport": "rest",
        "rest": {"url": slurm_cluster_rest.restd, "token_file": str(token_file)},
        "poll_seconds": 2,
        "commands_per_second": 20,
        "bin_dir": "/nonexistent",
    }
    with running_stack(cluster, relay={"bind": "127.0.0.1"}, scheduler=scheduler) as started:
        yield started


def test_run_goes_through(stack: Stack) -> None:
    """From the control plane to a job, and its end back."""
    run_id = nap(stack, 0)
    assert stack.wait_finished(run_id) == "SUCCESS"
    wait_for(
        "the end of its job is not seen",
        lambda: stack.job_of(run_id=run_id)["state"] == "COMPLETED",
        seconds=60,
        alive=[stack.agent],
    )


def test_run_can_be_terminated(stack: Stack) -> None:
    """By a signal where the API has one, else by the end of its job."""
    run_id = nap(stack, 200)
    wait_running(stack, run_id)
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id) == "CANCELED"
