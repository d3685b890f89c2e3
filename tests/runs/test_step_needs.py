"""What a code server says of a run's plan: read, or refused in one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpc_agent.errors import CodeServerError
from hpc_agent.runs.step_needs import default_place, steps_of

OURS = {"dagster-hpc/mem": "1G"}


def plan(*steps: dict[str, Any], **more: Any) -> str:
    return json.dumps({"__class__": "ExecutionPlanSnapshot", "steps": steps, **more})


def test_tags_of_the_steps_that_are_executed() -> None:
    """Only ours, and none of steps that are not selected; a step without tags counts."""
    text = plan(
        {"key": "a", "tags": {**OURS, "team": "x"}},
        {"key": "b", "tags": None},
        {"key": "c", "tags": OURS},
        step_keys_to_execute=["a", "b"],
    )
    assert steps_of(text) == (("a", OURS), ("b", {}))


@pytest.mark.parametrize(
    ("default", "in_the_run"),
    [
        ("auto", ["here", "with_it"]),
        ("job", ["here", "with_it"]),
        ("process", ["here", "with_it", "large", "grouped"]),
        ("srun", ["here", "with_it", "large", "grouped"]),
        ("in_process", ["here", "with_it", "large", "grouped"]),
    ],
)
def test_job_of_a_run_is_as_large_as_the_steps_in_it(default: str, in_the_run: list[str]) -> None:
    """A step's own tag wins over the default, and a group has one place."""
    text = plan(
        {"key": "here", "tags": {"dagster-hpc/step": "process", "dagster-hpc/group": "a", **OURS}},
        {"key": "with_it", "tags": {"dagster-hpc/group": "a", **OURS}},
        {"key": "large", "tags": OURS},
        {"key": "grouped", "tags": {"dagster-hpc/group": "b", **OURS}},
        {"key": "alone", "tags": {"dagster-hpc/step": "job", **OURS}},
        executor_name="slurm",
    )
    assert [key for key, _ in steps_of(text, default)] == in_the_run


@pytest.mark.parametrize(
    ("config", "default"),
    [
        ({"execution": {"config": {"default": "srun"}}}, "srun"),
        ({"execution": {"config": {"max_jobs": 3}}}, "auto"),
        ({"execution": {"config": {"default": {"env": "X"}}}}, "auto"),
        ({"execution": "srun"}, "auto"),
        ({}, "auto"),
        ([], "auto"),
    ],
)
def test_place_of_steps_is_read_in_the_configuration_of_the_run(
    config: object, default: str
) -> None:
    """It may be anything: Dagster refuses what is wrong."""
    assert default_place(config) == default


def test_plan_that_asks_for_nothing_is_no_plan_to_cover() -> None:
    assert steps_of(plan({"key": "a", "tags": {"team": "x"}})) == ()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ('{"__class__": "SerializableErrorInfo", "message": "no module"}', "made: no module"),
        ('{"__class__": "ExecutionPlanSnapshotErrorData", "error": {"message": "x"}}', "made: x"),
        (json.dumps({"message": "y" * 9000}), "made: yyy"),
        ("[]", "cannot be read"),
        ('{"steps": [1]}', "cannot be read"),
        ('{"steps": [{"tags": {}}]}', "cannot be read"),
        ('{"steps": [{"key": "a", "tags": {"t": 1}}]}', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("nonsense", "cannot be read"),
    ],
)
def test_what_is_no_plan_is_refused_in_a_sentence(answer: str, says: str) -> None:
    with pytest.raises(CodeServerError) as raised:
        steps_of(answer)
    assert says in str(raised.value)
    assert len(str(raised.value)) < 600
