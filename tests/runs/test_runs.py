"""From a launch request to a plan, and the last word on a run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hpc_agent.code_servers.deploy_data import DeployData
from hpc_agent.config import AgentConfig, parse_config
from hpc_agent.dagster_plus.requests import RunToLaunch, run_of
from hpc_agent.errors import ConfigError, ControlPlaneError
from hpc_agent.runs.last_word import RunEnd, failure_message, last_word, needs_status
from hpc_agent.runs.worker_plan import plan_run, run_key
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.workers import a_worker

ORIGIN = {"repository_origin": {"executable_path": "/code/bin/python"}}
RUN = RunToLaunch(run_id="r-1", job_name="j", location="here", tags={}, code_origin=ORIGIN)
VALUES: dict[str, Any] = {
    "key": "run-1",
    "kind": WorkerKind.RUN_WORKER,
    "phase": Phase.ENDED,
    "deployment": "prod",
    "location": "here",
    "run_id": "r-1",
    "created_at": 1.0,
    "job_id": "7",
    "state": JobState.FAILED,
    "exit_code": 1,
}


def config(**changes: Any) -> AgentConfig:
    content = {"control_plane": {"url": "https://x"}, "work_dir": "/work"}
    return parse_config(content | changes, source="test")


def test_run_runs_under_the_python_of_its_code_server() -> None:
    """Without a setting, the interpreter is the one that loaded the code."""
    plan = plan_run(config(), RUN, deployment="prod")
    assert plan.spec.argv[:-1] == ["/code/bin/python", "-m", "dagster", "api", "execute_run"]
    arguments = json.loads(str(plan.spec.argv[-1]))
    assert arguments["pipeline_run_id"] == "r-1"
    origin = arguments["pipeline_origin"]["repository_origin"]
    assert origin["executable_path"] == "/code/bin/python"


def test_command_line_of_a_run_shows_no_container_context() -> None:
    """It may hold secrets, and everybody on the node reads command lines."""
    context = {"k8s": {"env_vars": ["TOKEN=hunter2 " + "x" * 200_000]}}
    repository = {**ORIGIN["repository_origin"], "container_context": context}
    run = replace(RUN, code_origin={"repository_origin": repository})
    command_line = [str(word) for word in plan_run(config(), run, deployment="prod").spec.argv]
    assert "hunter2" not in " ".join(command_line)
    assert max(len(argument) for argument in command_line) < 128 * 1024


def test_settings_of_a_location_and_tags_of_a_run_win() -> None:
    """From the cluster's defaults to the run's own tags."""
    settings = config(
        options={"partition": "batch", "time": "60"},
        runs={"options": {"mem": "1G"}},
        locations={"here": {"run_options": {"mem": "2G"}, "environment": {"python": "/py"}}},
    )
    run = replace(RUN, tags={"dagster-hpc/time": "5"})
    plan = plan_run(settings, run, deployment="prod")
    assert {s.option: s.value for s in plan.settings} == {
        "partition": "batch",
        "mem": "2G",
        "time": "5",
        "signal": "B:USR1@30",
    }
    assert plan.spec.argv[0] == "/py"


def test_user_code_is_told_where_it_runs() -> None:
    """The variables of the control plane reach the run."""
    plan = plan_run(
        config(),
        RUN,
        deployment="prod",
        deployed=DeployData(cloud_context_env={"DAGSTER_CLOUD_DEPLOYMENT_NAME": "prod"}),
    )
    assert plan.spec.environment["DAGSTER_CLOUD_DEPLOYMENT_NAME"] == "prod"


@pytest.mark.parametrize(
    ("settings", "deployed", "loaded_from", "expected"),
    [
        ({}, "/deployed", "/loaded", "/deployed"),
        ({"working_directory": "/set"}, "/deployed", "/loaded", "/set"),
        ({"working_directory": "/set"}, "src", "/loaded", "/set"),
        ({}, None, "/loaded", "/loaded"),
        ({}, None, "/work/jobs/srv-1", None),
        ({}, None, "relative", None),
        ({}, None, None, None),
    ],
)
def test_run_starts_where_its_code_server_does(
    settings: dict[str, str], deployed: str | None, loaded_from: str | None, expected: str | None
) -> None:
    """Data and .env files beside the code are found; a server's own directory is not for long."""
    repository = {**ORIGIN["repository_origin"], "code_pointer": {"working_directory": loaded_from}}
    plan = plan_run(
        config(environment=settings),
        replace(RUN, code_origin={"repository_origin": repository}),
        deployment="prod",
        deployed=DeployData(working_directory=deployed),
    )
    assert plan.spec.working_directory == expected


def test_relative_directory_without_another_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match=r"'src' is relative.*environment\.working_directory"):
        plan_run(config(), RUN, deployment="prod", deployed=DeployData(working_directory="src"))


def test_artifacts_are_kept_by_deployment_and_location() -> None:
    """On the file system that all nodes see; names are never paths."""
    settings = config(artifacts={"directory": "/shared/artifacts"})
    plan = plan_run(settings, RUN, deployment="prod")
    assert plan.spec.artifacts_directory == "/shared/artifacts/prod/here"
    assert str(config().artifacts_of("../x", "..")) == "/work/artifacts/..%2Fx/%2E%2E"


def test_python_logs_of_a_location_win() -> None:
    settings = config(
        python_logs={"managed_python_loggers": ["a"]},
        locations={"here": {"python_logs": {"python_log_level": "INFO"}}},
    )
    arguments = json.loads(str(plan_run(settings, RUN, deployment="prod").spec.argv[-1]))
    assert arguments["instance_ref"]["settings"] == {"python_logs": {"python_log_level": "INFO"}}


def test_run_without_a_python_is_refused_with_advice() -> None:
    """The message names the two places where it can be set."""
    with pytest.raises(ConfigError, match=r"environment\.python.*executable_path"):
        plan_run(config(), replace(RUN, code_origin=None), deployment="prod")


def test_key_of_a_run_is_always_the_same() -> None:
    """That is why a run can never be two jobs."""
    assert run_key("r-1") == run_key("r-1") != run_key("r-2")


def test_request_without_a_run_is_refused() -> None:
    """Whatever sent it."""
    with pytest.raises(ControlPlaneError):
        run_of({})


@pytest.mark.parametrize(
    ("changes", "status", "run_end"),
    [
        ({}, "STARTED", RunEnd.FAILED),
        ({}, "STARTING", RunEnd.FAILED),
        ({}, "SUCCESS", RunEnd.NOTHING),
        ({}, "FAILURE", RunEnd.NOTHING),
        ({}, "CANCELED", RunEnd.NOTHING),
        ({}, "CANCELING", RunEnd.CANCELED),
        ({"terminate_at": 1.0}, "STARTED", RunEnd.CANCELED),
        ({"phase": Phase.LOST}, "STARTED", RunEnd.FAILED),
        ({"phase": Phase.WITHDRAWN, "terminate_at": 1.0}, "CANCELING", RunEnd.CANCELED),
        ({"phase": Phase.REFUSED, "attempt": 2}, "STARTED", RunEnd.FAILED),
        ({"phase": Phase.REFUSED, "attempt": 2}, "SUCCESS", RunEnd.NOTHING),
        ({}, None, RunEnd.NOTHING),
    ],
)
def test_last_word_on_a_run(changes: dict[str, Any], status: str | None, run_end: RunEnd) -> None:
    """Only a run that its worker left open gets one from the agent."""
    worker = a_worker(**(VALUES | changes))
    word = last_word(worker, is_request_open=False, run_status=status)
    assert word.run_end is run_end


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.is_final])
@pytest.mark.parametrize("is_request_open", [True, False])
def test_no_run_ends_in_silence(phase: Phase, is_request_open: bool) -> None:
    """Whatever its final phase: its request fails, or the run itself is told."""
    worker = a_worker(**(VALUES | {"phase": phase, "message": "no such partition"}))
    assert needs_status(worker, is_request_open=is_request_open) is not (
        phase is Phase.REFUSED and is_request_open
    )
    word = last_word(worker, is_request_open=is_request_open, run_status="STARTING")
    is_told = word.run_end is not RunEnd.NOTHING and word.message != ""
    assert is_told or (is_request_open and word.failure is not None)


def test_refusal_of_a_launch_is_its_answer() -> None:
    """The control plane fails the run; a second failure event would say the same."""
    worker = a_worker(**(VALUES | {"phase": Phase.REFUSED, "message": "no such partition"}))
    word = last_word(worker, is_request_open=True, run_status=None)
    assert (word.run_end, word.failure) == (RunEnd.NOTHING, "no such partition")


def test_success_without_a_finished_run_is_no_success() -> None:
    """An exit code of 0 does not finish a run."""
    clean = a_worker(**(VALUES | {"state": JobState.COMPLETED, "exit_code": 0}))
    word = last_word(clean, is_request_open=False, run_status="STARTED")
    assert word.run_end is RunEnd.FAILED
    assert "ended without finishing the run" in failure_message(clean)
