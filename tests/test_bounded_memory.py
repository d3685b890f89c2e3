"""What the agent keeps in memory does not grow with time: each of these once did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpc_agent.agent.absence import AbsenceClock
from hpc_agent.code_servers.demand import Demand
from hpc_agent.code_servers.restarts import Restarts
from hpc_agent.code_servers.workspace import Workspace
from hpc_agent.config import parse_config
from hpc_agent.config.agent import AgentConfig
from hpc_agent.dagster_plus.agent_calls import Deployment
from hpc_agent.jobs.bursts import Bursts
from hpc_agent.relay import documents
from hpc_agent.slurm import local_jobs
from hpc_agent.slurm.local_jobs import LocalJobs
from hpc_agent.store.code_servers import ServerStatus
from tests.code_servers.conftest import deployment, entry
from tests.code_servers.test_reconciliation import A, a_server

MANY = 5000


class Question:
    """What was asked of the control plane."""

    deployments = ("prod",)
    checks: frozenset[str] = frozenset()


def workspace_of(tmp_path: Path, **settings: Any) -> tuple[Workspace, Demand]:
    config: AgentConfig = parse_config(
        {
            "control_plane": {"url": "http://127.0.0.1:9"},
            "work_dir": str(tmp_path / "work"),
            "home": str(tmp_path / "home"),
            **settings,
        },
        source="test",
    )
    demand = Demand(config.code_servers.server_ttl, lambda: 0.0)
    return Workspace(config, demand), demand


def outdated(version: float) -> Deployment:
    return deployment("prod", entry("a", version=version, hasOutdatedData=True))


def take_over(workspace: Workspace, *found: Deployment) -> None:
    workspace.take_over(Question(), list(found))  # type: ignore[arg-type]


def size(kept: Any) -> int:
    return len(kept)


def test_each_deploy_of_a_location_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """Of which version definitions were uploaded is remembered for what is there."""
    workspace, _ = workspace_of(tmp_path)
    for version in range(50):
        take_over(workspace, outdated(float(version)))
    assert size(workspace._seen_outdated) == 1
    take_over(workspace, deployment("prod"))
    assert size(workspace._seen_outdated) == 0


def test_locations_that_may_not_be_served_are_remembered_up_to_a_number(tmp_path: Path) -> None:
    """Branch deployments come and go with their names."""
    workspace, _ = workspace_of(tmp_path, allowed_full_deployment_locations={"prod": ["a"]})
    for number in range(1200):
        take_over(workspace, deployment("prod", entry(f"location {number}")))
    assert size(workspace._skipped) == 1000


def test_no_upload_is_waited_for_of_a_location_that_is_gone(tmp_path: Path) -> None:
    """It would be wanted for ever."""
    workspace, demand = workspace_of(tmp_path, code_servers={"server_ttl": {"enabled": True}})
    take_over(workspace, outdated(1.0))
    assert demand.wanted() == {A}
    take_over(workspace, deployment("prod"))
    assert size(demand._uploads) == 0


def test_failures_of_earlier_versions_are_forgotten() -> None:
    """A location whose every deploy fails."""
    restarts = Restarts(lambda: 0.0)
    for version in range(50):
        server, _ = a_server(version=float(version), status=ServerStatus.FAILED)
        restarts.failed(server)
        restarts.keep({(*A, repr(float(version)))})
    assert len(restarts) == 1


def test_job_that_is_over_is_absent_no_more() -> None:
    """As many as are lost in the life of an agent."""
    absences = AbsenceClock(lambda: 0.0)
    for job in range(MANY):
        absences.seconds(job)
        absences.keep({job})
    assert len(absences) == 1


def test_likeness_of_which_nothing_is_known_is_not_remembered() -> None:
    """Each run may have one of its own."""
    bursts = Bursts()
    for number in range(MANY):
        now, likeness = float(number), f"likeness {number}"
        bursts.ended(likeness, bursts.begun(likeness, now))
        bursts.forget_old(now)
    assert len(bursts) < 10


def test_long_documents_are_not_kept() -> None:
    """User code may send megabytes, each time others."""
    documents._cached.cache_clear()
    documents.calls("query { version }")
    documents.calls("query { version } #" + "x" * 100_000)
    assert documents._cached.cache_info().currsize == 1


def test_local_jobs_of_long_ago_are_removed_while_the_agent_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only at its next start."""
    monkeypatch.setattr(local_jobs, "_KEEP_SECONDS", -60)
    monkeypatch.setattr(local_jobs, "_REMOVE_INTERVAL_SECONDS", 0)
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    jobs = LocalJobs(tmp_path / "local", slots=1, grace_seconds=1)
    job_id = jobs.submit(script, name="x", comment="")
    jobs.cancel(job_id)
    jobs.look()
    assert jobs.look().records == ()
    assert size(jobs._ended) == 0
