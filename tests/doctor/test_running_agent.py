"""The doctor beside a real control plane and an agent that runs."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.doctor.finding import Status
from tests.doctor.site import Site
from tests.e2e.conftest import say

pytestmark = pytest.mark.e2e

ABOUT_THE_PLANE = ("control-plane", "deployments", "clock")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A control plane, and an agent with the local scheduler."""
    with tempfile.TemporaryDirectory(prefix="hpc-doctor-", ignore_cleanup_errors=True) as path:
        directories = Directories(local=Path(path), shared=Path(path) / "shared")
        stack = Stack(
            ClusterChoice(kind="local", version="", found="asked for"), directories, say=say
        )
        try:
            stack.start_control_plane()
            stack.configure_agent()
            stack.start_agent()
            yield stack
        finally:
            stack.close()


@pytest.fixture
def site(tmp_path: Path, stack: Stack) -> Site:
    """The stack's own agent.yaml, to be changed."""
    site = Site(tmp_path)
    site.content = copy.deepcopy(yaml.safe_load(stack.directories.agent_yaml.read_text()))
    return site


def test_agent_that_runs_is_well_and_reached_by_jobs(site: Site, stack: Stack) -> None:
    """The probe goes to the relay of the agent that runs, and opens none beside it."""
    found = site.findings(
        *ABOUT_THE_PLANE,
        "agent",
        "backlog",
        "database",
        "relay",
    )
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert found["control-plane"].fact == f"{stack.api_url} answers and takes the token"
    port = (stack.config.home / "relay-port").read_text().strip()
    assert f":{port}" in found["relay"].fact


def test_token_that_is_refused_is_a_problem(site: Site) -> None:
    """The address is right, the token is not."""
    token = site.directory / "other-token"
    token.touch(mode=0o600)
    token.write_text("agent:nobody:guess")
    site.content["control_plane"]["token_file"] = str(token)
    found = site.findings("control-plane")["control-plane"]
    assert found.status is Status.PROBLEM
    assert "token" in found.fact


def test_unknown_deployment_is_a_problem(site: Site) -> None:
    """The agent would not start."""
    site.content["control_plane"]["deployments"] = ["prod", "nowhere"]
    found = site.findings(*ABOUT_THE_PLANE)
    assert found["deployments"].fact == "there is no deployment nowhere"
    assert found["control-plane"].status is Status.OK


def test_branch_deployments_are_counted(site: Site, stack: Stack) -> None:
    """None is told; one is well."""
    site.content["control_plane"]["branch_deployments"] = True
    home = str(stack.directories.control_plane)
    only = "branch-deployments"
    assert "has none" in site.findings(only)["branch-deployments"].fact
    create = ("control-plane", "deployment", "create", "feature", "--branch")
    stack.run_command(*create, "--home", home)
    assert site.findings(only)["branch-deployments"].fact == "branch deployments: 1"


def test_certificate_that_is_not_trusted_is_a_problem(site: Site) -> None:
    """Without ca_bundle nobody vouches for the gateway's own certificate."""
    del site.content["control_plane"]["ca_bundle"]
    found = site.findings("control-plane")["control-plane"]
    assert "certificate" in found.fact.lower()
    assert "ca_bundle" in found.advice


def test_what_cannot_be_asked_is_skipped(site: Site) -> None:
    """A control plane that does not answer has not said that deployments exist."""
    site.content["control_plane"]["url"] = "https://127.0.0.1:9"
    found = site.findings(*ABOUT_THE_PLANE)
    assert found["control-plane"].status is Status.PROBLEM
    assert found["deployments"].status is Status.SKIPPED
    assert found["clock"].status is Status.SKIPPED
