"""``dagster-cloud job launch`` and ``run status`` against our control plane with a stock agent."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from hpc_agent.control_plane.database_url import VARIABLE
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


def deploy(plane: ControlPlane, directory: Path) -> None:
    file = directory / "one.yaml"
    location = {"location_name": "pipelines", "code_source": {"python_file": str(USER_CODE)}}
    file.write_text(yaml.safe_dump({"locations": [location]}))
    plane.cli("deploy", str(file))


def test_job_is_launched_and_watched(tmp_path: Path) -> None:
    """A user's token launches a run through the gateway, once per key, and reads its status."""
    with running_control_plane(tmp_path / "home") as plane:
        deploy(plane, tmp_path)
        token = plane.cli("token", "create", "--kind", "user").strip()
        with running_stock_agent(plane, tmp_path / "agent"):
            poll(lambda: plane.is_loaded("pipelines"), "location pipelines loads")

            run_id = command(
                plane, token, "job", "launch", "--location", "pipelines", "--job", "sums"
            )
            plane.wait_for_run(run_id, "SUCCESS")

            assert command(plane, token, "run", "status", run_id) == "SUCCESS"
            assert launch_under_key(plane, token, "k") == launch_under_key(plane, token, "k")


def test_launch_at_two_gateways_under_one_key_makes_one_run(
    shared_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch that is repeated at another gateway, even at once, gets the first one's answer."""
    monkeypatch.setenv(VARIABLE, shared_url)
    with (
        running_control_plane(tmp_path / "one") as one,
        running_control_plane(tmp_path / "two", "--no-daemon") as two,
        running_stock_agent(one, tmp_path / "agent"),
        ThreadPoolExecutor(4) as pool,
    ):
        deploy(one, tmp_path)
        token = one.cli("token", "create", "--kind", "user").strip()
        for plane in (one, two):
            poll(partial(plane.is_loaded, "pipelines"), "location pipelines loads")

        launched = list(pool.map(lambda plane: launch_under_key(plane, token, "k"), (one, two) * 2))

        assert len(set(launched)) == 1
        one.wait_for_run(launched[0], "SUCCESS")
        runs = two.query("{ runsOrError { ... on Runs { results { runId } } } }")
        assert runs["runsOrError"]["results"] == [{"runId": launched[0]}]
