"""What others on a shared cluster can see and reach of a job: nothing that lets them act for it."""

from __future__ import annotations

import ipaddress
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from hpc_agent.demo.stack import Stack
from tests.cluster import SlurmCluster
from tests.e2e.test_runs import nap, slurm_job, wait_running

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def running_job(stack: Stack) -> Iterator[dict[str, str]]:
    """A run worker that is at work, beside the code server."""
    run_id = nap(stack, 120)
    yield wait_running(stack, run_id)
    stack.webserver.terminate(run_id)
    stack.wait_finished(run_id)


def compute_processes(stack: Stack) -> list[psutil.Process]:
    """Return all processes of our jobs: node programs, children, and theirs."""
    jobs = str(stack.config.work_dir / "jobs")
    programs = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(argument.startswith(jobs) for argument in process.info["cmdline"] or [])
    ]
    return [child for program in programs for child in [program, *program.children(recursive=True)]]


def listening(processes: list[psutil.Process]) -> list[tuple[str, int]]:
    """Return the TCP addresses on which these processes listen, as `ss -ltnp` shows them."""
    return [
        (connection.laddr.ip, connection.laddr.port)
        for process in processes
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def secrets(stack: Stack) -> list[str]:
    """Return the agent token and all job tokens."""
    tokens = [path.read_text().strip() for path in stack.config.work_dir.glob("jobs/*/token")]
    agent_token = stack.config.control_plane.token_file
    assert agent_token is not None
    return [agent_token.read_text().strip(), *tokens]


def test_compute_side_listens_on_loopback_alone(stack: Stack, running_job: dict[str, str]) -> None:
    """Code server, run worker and node programs open nothing to the network."""
    processes = compute_processes(stack)
    assert len(processes) >= 4
    found = listening(processes)
    assert found, "the node programs listen on loopback"
    assert all(ipaddress.ip_address(address).is_loopback for address, _ in found)


def test_loopback_answers_401_without_the_jobs_token(
    stack: Stack, running_job: dict[str, str]
) -> None:
    """Other users of the node get nowhere: without a token, or with that of another."""
    addresses = listening(compute_processes(stack))
    tokens = [token for token in secrets(stack) if token.startswith(("run-", "srv-"))]
    for address, port in addresses:
        url = f"http://{address}:{port}"
        assert httpx.post(f"{url}/graphql", json={}).status_code == 401
        headers = {"Dagster-Cloud-Api-Token": "agent:me:guess"}
        assert httpx.post(f"{url}/graphql", json={}, headers=headers).status_code == 401
        assert httpx.get(f"{url}/gen_logs_url").status_code == 401
        assert httpx.put(f"{url}/_hpc/upload/x.y", content=b"").status_code == 401
        foreign = [
            token
            for token in tokens
            if httpx.post(
                f"{url}/graphql", json={}, headers={"Dagster-Cloud-Api-Token": token}
            ).status_code
            != 401
        ]
        assert len(foreign) == 1, "each address takes exactly one token: its own job's"


def test_no_token_is_where_others_look(
    stack: Stack, slurm_cluster: SlurmCluster, running_job: dict[str, str]
) -> None:
    """Not in `ps`, not in job scripts, not in what Slurm shows, not in logs."""
    shown = [slurm_job(slurm_cluster, running_job["job_id"])]
    script = subprocess.run(
        ["scontrol", "write", "batch_script", running_job["job_id"], "-"],
        env=dict(slurm_cluster.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    shown.append(script.stdout)
    shown += [
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
    directory = stack.config.work_dir / "jobs" / running_job["key"]
    shown += [(directory / name).read_text() for name in ("job.sh", "spec.json", "slurm.out")]
    shown += [path.read_text() for path in stack.directories.logs.glob("*.log")]
    for secret in secrets(stack):
        assert not any(secret in text for text in shown)


def test_files_of_a_job_are_private(stack: Stack, running_job: dict[str, str]) -> None:
    """Directories 0700, files 0600: whatever the umask of the user is."""
    directory: Path = stack.config.work_dir / "jobs" / running_job["key"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in ("token", "spec.json", "job.sh", "stdout", "stderr"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name
