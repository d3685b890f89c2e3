"""The doctor beside a real control plane and an agent that runs."""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.demo.processes import Child, wait_for
from hpc_agent.doctor.finding import Status
from tests.control_plane.running import ControlPlane, running_control_plane
from tests.doctor.site import Site

pytestmark = pytest.mark.e2e

ABOUT_THE_PLANE = ("control-plane", "deployments", "clock")


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway, and the agent.yaml of the agent that is connected to it."""

    plane: ControlPlane
    content: dict[str, Any]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A control plane without a web page, and an agent with the local scheduler."""
    with tempfile.TemporaryDirectory(prefix="hpc-doctor-", ignore_cleanup_errors=True) as path:
        site = Site(Path(path))
        with running_control_plane(Path(path) / "cp", "--no-webserver", "--no-daemon") as plane:
            (site.directory / "token").write_text(plane.cli("token", "create").strip())
            site.content["control_plane"] |= {"url": plane.api, "ca_bundle": plane.ca}
            argv = [sys.executable, "-m", "hpc_agent", "start", "--config", str(site.write())]
            agent = Child("agent", argv, site.directory / "agent.log")
            agent.start()
            try:
                wait_for(
                    "the agent does not connect",
                    lambda: "connected to" in agent.tail(),
                    seconds=60,
                    alive=[agent],
                )
                yield Running(plane, site.content)
            finally:
                agent.stop()


@pytest.fixture
def site(tmp_path: Path, running: Running) -> Site:
    """The running agent's own agent.yaml, to be changed."""
    site = Site(tmp_path)
    site.content = copy.deepcopy(running.content)
    return site


def test_agent_that_runs_is_well_and_reached_by_jobs(site: Site, running: Running) -> None:
    """The probe goes to the relay of the agent that runs, and opens none beside it."""
    found = site.findings(*ABOUT_THE_PLANE, "agent", "backlog", "database", "relay")
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert found["control-plane"].fact == f"{running.plane.api} answers and takes the token"
    port = (Path(site.content["home"]) / "relay-port").read_text().strip()
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


def test_branch_deployments_are_counted(site: Site, running: Running) -> None:
    """None is told; one is well."""
    site.content["control_plane"]["branch_deployments"] = True
    only = "branch-deployments"
    assert "has none" in site.findings(only)["branch-deployments"].fact
    running.plane.cli("deployment", "create", "feature", "--branch")
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
