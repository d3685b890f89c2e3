"""``dagster-cloud job launch`` and ``run status`` against our control plane with a stock agent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from tests.control_plane.running import (
    ControlPlane,
    poll,
    running_control_plane,
    running_stock_agent,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

USER_CODE = Path(__file__).parent / "user_code" / "pipelines.py"


def command(plane: ControlPlane, token: str, *arguments: str) -> str:
    """Run ``dagster-cloud`` and return what it prints."""
    options = ["--url", plane.api, "--api-token", token, "--deployment", "prod"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dagster-cloud"), *arguments, *options],
        env={**os.environ, "REQUESTS_CA_BUNDLE": plane.ca}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


LAUNCH = """mutation L($executionParams: ExecutionParams!) {
  launchRun(executionParams: $executionParams) {
    __typename ... on LaunchRunSuccess { run { runId } } } }"""


def launch_under_key(plane: ControlPlane, token: str, key: str) -> str:
    """Launch as the command does, whose key we cannot choose."""
    selector = {
        "repositoryLocationName": "pipelines",
        "repositoryName": "__repository__",
        "jobName": "sums",
    }
    variables = {"executionParams": {"selector": selector, "runConfigData": {}}}
    response = httpx.post(
        f"{plane.api}/graphql", json={"query": LAUNCH, "variables": variables}, timeout=60,
        headers={"Dagster-Cloud-Api-Token": token, "Idempotency-Key": key},
        verify=False,  # noqa: S501 the certificate is not what is tested here
    )  # fmt: skip
    run_id: str = response.json()["data"]["launchRun"]["run"]["runId"]
    return run_id


def test_job_is_launched_and_watched(tmp_path: Path) -> None:
    """A user's token launches a run through the gateway, once per key, and reads its status."""
    file = tmp_path / "one.yaml"
    location = {"location_name": "pipelines", "code_source": {"python_file": str(USER_CODE)}}
    file.write_text(yaml.safe_dump({"locations": [location]}))
    with running_control_plane(tmp_path / "home") as plane:
        plane.cli("deploy", str(file))
        token = plane.cli("token", "create", "--kind", "user").strip()
        with running_stock_agent(plane, tmp_path / "agent"):
            poll(lambda: plane.is_loaded("pipelines"), "location pipelines loads")

            run_id = command(
                plane, token, "job", "launch", "--location", "pipelines", "--job", "sums"
            )
            plane.wait_for_run(run_id, "SUCCESS")

            assert command(plane, token, "run", "status", run_id) == "SUCCESS"
            assert launch_under_key(plane, token, "k") == launch_under_key(plane, token, "k")
