"""A branch deployment from its making to its end: stock command, our control plane, our agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack, example_location
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.store.selection import EVERYTHING
from tests.e2e.conftest import running_stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

LOCAL = ClusterChoice(kind="local", version="", found="", slurm_conf=None)
NAP = {"ops": {"sleep_and_tell": {"config": {"seconds": 1}}}}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack whose agent serves branch deployments as well."""
    settings = {
        "control_plane": {"branch_deployments": True},
        "compute_logs": {"enabled": False},
        "runs": {"grace_seconds": 2},
    }
    with running_stack(LOCAL, **settings) as started:
        yield started


@pytest.fixture(scope="module")
def token(stack: Stack) -> str:
    """What a CI job has: the token of a user."""
    home = str(stack.directories.control_plane)
    created = stack.run_command(
        "control-plane", "token", "create", "--kind", "user", "--json", "--home", home
    )
    return str(json.loads(created)["token"])


@pytest.fixture(scope="module")
def branch(stack: Stack, token: str) -> str:
    """The name of a branch deployment with the example location in it."""
    name = dagster_cloud(
        stack, token, "branch-deployment", "create-or-update", "--git-repo-name", "team/weather",
        "--branch-name", "feature/a;b", "--commit-hash", "c0ffee", "--timestamp", "1764000000",
    )  # fmt: skip
    file = stack.directories.local / "branch.yaml"
    entry = {"location_name": "example", **example_location()}
    file.write_text(yaml.safe_dump({"locations": [entry]}))
    dagster_cloud(
        stack, token, "workspace", "sync", "--workspace", str(file), "--deployment", name,
        "--location-load-timeout", "0", "--agent-heartbeat-timeout", "0",
    )  # fmt: skip
    return name


def dagster_cloud(stack: Stack, token: str, *arguments: str) -> str:
    """Run the stock ``dagster-cloud`` command and return what it prints."""
    ca_bundle = str(stack.directories.control_plane / "tls" / "ca.pem")
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "dagster-cloud"), *arguments,
            "--url", stack.api_url, "--api-token", token,
        ],
        env={**os.environ, "REQUESTS_CA_BUNDLE": ca_bundle},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def errors_of(stack: Stack, run_id: str) -> list[str]:
    """Return what the run's log has of errors, for the message of a failure."""
    return [str(event["error"]) for event in stack.webserver.events(run_id) if event.get("error")]


def servers_of(stack: Stack, deployment: str) -> dict[str, str]:
    """Return the agent's code servers of a deployment, with the phases of their jobs."""
    return {
        job["key"]: job["phase"]
        for job in read_jobs(stack.config, EVERYTHING)
        if job["deployment"] == deployment and job["kind"] == "code_server"
    }


def test_run_is_launched_in_the_branch(stack: Stack, branch: str) -> None:
    """The location comes up by a server of its own, and the run is a job of the branch."""
    location = f"example@{branch}"
    stack.wait_loaded(location)
    run_id = stack.webserver.launch(location, "sleepy_job", config=NAP)
    assert stack.wait_finished(run_id) == "SUCCESS", errors_of(stack, run_id)
    assert stack.job_of(run_id=run_id)["deployment"] == branch


def test_deleted_branch_takes_its_server_along(stack: Stack, token: str, branch: str) -> None:
    """Nothing of it runs on, and the other deployment notices nothing."""
    stack.wait_loaded(f"example@{branch}")
    others = servers_of(stack, "prod")
    assert list(servers_of(stack, branch).values()) == ["running"]

    dagster_cloud(stack, token, "branch-deployment", "delete", "--deployment", branch)

    wait_for(
        "the server of the deleted branch does not go",
        lambda: list(servers_of(stack, branch).values()) == ["ended"],
        seconds=90,
        alive=[stack.agent, stack.control_plane],
    )
    assert stack.webserver.locations() == {"example": None}
    assert servers_of(stack, "prod") == others
