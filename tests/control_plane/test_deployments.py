"""Several deployments in one control plane, with the stock agent, on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.control_plane.database_url import VARIABLE
from hpc_agent.control_plane.store.deployments import branch_deployment_name
from tests.control_plane.running import (
    ControlPlane,
    poll,
    running_control_plane,
    running_stock_agent,
)
from tests.control_plane.test_stock_agent import USER_CODE, write_deploy_file
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

REPOSITORY, BRANCH = "team/project", "feature/faster I/O"
NAME = branch_deployment_name(REPOSITORY, BRANCH)


@pytest.fixture(scope="module")
def plane(
    postgres: PostgresServer, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A control plane on PostgreSQL with a second full deployment."""
    url = postgres.create_database(postgres_template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, url)
        directory = tmp_path_factory.mktemp("plane")
        with running_control_plane(directory / "home") as running:
            running.cli("deployment", "create", "staging")
            yield running
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def loaded(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The same location in three deployments, and one stock agent for all of them."""
    directory = tmp_path_factory.mktemp("agent")
    file = write_deploy_file(directory / "one.yaml", pipelines=USER_CODE / "pipelines.py")
    plane.cli("deploy", file)
    plane.cli("deploy", file, "--deployment", "staging")
    create_branch_deployment(plane, file)
    serves = {"deployments": ["prod", "staging"], "branch_deployments": True}
    with running_stock_agent(plane, directory / "agent", serves):
        for name in ("pipelines", "pipelines@staging", f"pipelines@{NAME}"):
            try:
                poll(lambda name=name: plane.is_loaded(name), f"location {name} loads")  # type: ignore[misc]
            except AssertionError as error:
                raise AssertionError((directory / "agent" / "agent.log").read_text()) from error
        yield plane


def create_branch_deployment(plane: ControlPlane, file: str) -> None:
    """Do what a CI job does: make the branch's deployment, and sync its locations."""
    token = plane.cli("token", "create", "--kind", "user").strip()
    command = [
        "branch-deployment", "create-or-update", "--git-repo-name", REPOSITORY,
        "--branch-name", BRANCH, "--commit-hash", "c0ffee", "--timestamp", "1764000000",
    ]  # fmt: skip
    assert stock(plane, token, *command).strip() == NAME
    stock(
        plane, token, "workspace", "sync", "--workspace", file, "--deployment", NAME,
        "--location-load-timeout", "0", "--agent-heartbeat-timeout", "0",
    )  # fmt: skip


def stock(plane: ControlPlane, token: str, *arguments: str) -> str:
    """Run the stock ``dagster-cloud`` command."""
    argv = [str(Path(sys.executable).parent / "dagster-cloud"), *arguments]
    result = subprocess.run(
        [*argv, "--url", plane.api, "--api-token", token], capture_output=True, text=True,
        env={**os.environ, "REQUESTS_CA_BUNDLE": plane.ca}, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("location", ["pipelines", "pipelines@staging", f"pipelines@{NAME}"])
def test_run_succeeds_in_each_deployment(loaded: ControlPlane, location: str) -> None:
    """A job of the same name is launched where the user chose it."""
    run_id = loaded.launch("sums", location=location)

    loaded.wait_for_run(run_id, "SUCCESS")
    assert "rows: 3" in loaded.messages(run_id)


def test_run_in_a_second_deployment_is_terminated(loaded: ControlPlane, tmp_path: Path) -> None:
    """The agent finds the run under the location's plain name."""
    started = tmp_path / "started"
    config = {"ops": {"wait_forever": {"config": {"started": str(started)}}}}
    run_id = loaded.launch("endless", config, location="pipelines@staging")
    poll(started.exists, "the op has started")

    loaded.query("mutation T($id: String!) { terminateRun(runId: $id) { __typename } }", id=run_id)

    loaded.wait_for_run(run_id, "CANCELED")


def test_deleted_branch_deployment_is_gone(loaded: ControlPlane) -> None:
    """The stock command deletes it; its location leaves the UI, the others stay."""
    token = loaded.cli("token", "create", "--kind", "user").strip()

    stock(loaded, token, "branch-deployment", "delete", "--deployment", NAME)

    poll(lambda: loaded.location(f"pipelines@{NAME}") is None, "the UI forgets the location")
    assert loaded.is_loaded("pipelines@staging")
    assert NAME not in loaded.cli("deployment", "list")
