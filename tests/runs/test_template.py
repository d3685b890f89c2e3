"""What warms a pool: one template for all that a code location's version executes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dagster._core.code_pointer import FileCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._serdes import deserialize_value, pack_value

from hpc_agent.code_servers.deploy_data import DeployData
from hpc_agent.config import AgentConfig, parse_config
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.jobs.directory import Template
from hpc_agent.runs.worker_plan import plan_run

REPOSITORY = RepositoryPythonOrigin("/code/bin/python", FileCodePointer("/code/defs.py", "defs"))


@pytest.fixture
def config() -> AgentConfig:
    content: dict[str, Any] = {
        "control_plane": {"url": "https://x"},
        "work_dir": "/work",
        "pools": {"short": {"options": {"cpus-per-task": 4, "time": "1:00:00"}}},
        "locations": {"here": {"pool": "short"}},
    }
    return parse_config(content, source="test")


def template(
    config: AgentConfig,
    job: str,
    *,
    repository: RepositoryPythonOrigin = REPOSITORY,
    version: str = "1",
) -> Template:
    """Return that of a run of a job."""
    origin = pack_value(JobPythonOrigin(job, repository))
    assert isinstance(origin, dict)
    run = RunToLaunch(
        run_id=f"run-of-{job}", job_name=job, location="here", tags={}, code_origin=origin
    )
    plan = plan_run(config, run, deployment="prod", deployed=DeployData(), version=version)
    assert plan.spec.template is not None
    return plan.spec.template


def test_all_jobs_of_a_location_have_one_template(config: AgentConfig) -> None:
    """A run of another job than the one before finds its pool warm."""
    assert template(config, "one") == template(config, "other")


def test_code_that_was_deployed_anew_has_another(config: AgentConfig) -> None:
    assert template(config, "one").id != template(config, "one", version="2").id
    elsewhere = REPOSITORY._replace(code_pointer=FileCodePointer("/code/defs.py", "others"))
    assert template(config, "one").id != template(config, "one", repository=elsewhere).id


def test_it_says_where_the_repository_is(config: AgentConfig) -> None:
    """As Dagster reads it on the node."""
    told = json.dumps(template(config, "one").to_json()["code_origin"])
    assert deserialize_value(told, RepositoryPythonOrigin).code_pointer == REPOSITORY.code_pointer
