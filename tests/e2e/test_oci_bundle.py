"""Code servers and runs in OCI bundles: Slurm's own ``--container``, by runc."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Directories, Stack
from tests.cluster import SlurmCluster, own_cluster
from tests.e2e.conftest import choice_of, say, started
from tests.e2e.test_runs import engine_lines, nap, wait_running
from tests.oci import HOSTNAME, MARK, NoOciError, make_bundle

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    """A cluster whose jobs may be containers."""
    with own_cluster(oci_runtime="runc") as started:
        yield started


@pytest.fixture(scope="module")
def stack(cluster: SlurmCluster) -> Iterator[Stack]:
    """A stack all of whose jobs are containers."""
    with tempfile.TemporaryDirectory(prefix="hpc-e2e-", ignore_cleanup_errors=True) as path:
        local = Path(path)
        shared = local / "shared"
        shared.mkdir()
        try:
            bundle = make_bundle(local / "bundle", writable=[shared])
        except NoOciError as reason:
            pytest.skip(str(reason))
        settings = {
            "scheduler": {
                "poll_seconds": 2,
                "commands_per_second": 20,
                "bin_dir": cluster.environment["PATH"].partition(":")[0],
            },
            "environment": {
                "container": {"runtime": "slurm", "image": str(bundle)},
                "setup": ["pwd > where"],
            },
            "relay": {"bind": "127.0.0.1"},
        }
        directories = Directories(local=local, shared=shared)
        stack = Stack(choice_of(cluster), directories, say=say, settings=settings)
        with started(stack):
            yield stack


def processes_of(key: str) -> list[psutil.Process]:
    """Return what runs with a job's token, which only its own processes have."""
    found = []
    for process in psutil.process_iter():
        try:
            token = process.environ().get("HPC_AGENT_JOB_TOKEN", "")
        except (psutil.Error, OSError):
            continue
        if token.startswith(f"{key}:"):
            found.append(process)
    return found


def test_code_server_and_run_worker_are_in_the_bundle(stack: Stack) -> None:
    """In other namespaces, in its root; nothing else of this machine is there."""
    run_id = nap(stack, 60)
    jobs = [stack.job_of(location="example"), wait_running(stack, run_id)]
    for job in jobs:
        processes = processes_of(job["key"])
        assert processes
        for process in processes:
            own, root = Path("/proc/self/ns"), Path(f"/proc/{process.pid}/root")
            for kind in ("mnt", "pid", "uts", "ipc"):
                namespace = Path(f"/proc/{process.pid}/ns") / kind
                assert namespace.readlink() != (own / kind).readlink()
            assert (root / MARK.lstrip("/")).exists()
            assert not (root / "var").exists()
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id, seconds=60) == "CANCELED"


def test_signal_reaches_the_run_worker(stack: Stack) -> None:
    """A termination ends it in good order: the node program writes its record."""
    run_id = nap(stack, 120)
    job = wait_running(stack, run_id)
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id, seconds=60) == "CANCELED"
    record = stack.directories.shared / "work" / "jobs" / job["key"] / "exit.json"
    wait_for("the node program leaves no exit record", record.exists, seconds=30)
    assert json.loads(record.read_text())["hostname"] in {"c1", "c2"}


def test_run_in_a_bundle_succeeds_and_names_its_node(stack: Stack) -> None:
    """Its log arrives, its end is told, and the node has the name that Slurm gives it."""
    run_id = nap(stack, 1)
    assert stack.wait_finished(run_id) == "SUCCESS"
    job = stack.job_of(run_id=run_id)
    job_id = job["job_id"]
    wait_for(
        "the end of the job is not told",
        lambda: f"Job {job_id} ended: COMPLETED" in engine_lines(stack, run_id),
        seconds=30,
    )
    lines = engine_lines(stack, run_id)
    assert not any(HOSTNAME in line for line in lines)
    assert any(line in {f"Job {job_id} runs on c{node}." for node in (1, 2)} for line in lines)
    directory = stack.directories.shared / "work" / "jobs" / job["key"]
    assert (directory / "where").read_text() == f"{directory}\n"
    assert any(logs["stdout"] for logs in stack.printed(run_id))
