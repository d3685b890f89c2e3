"""Decisions on steps: their place, what shares a job, and what they are told of the run."""

from __future__ import annotations

import pytest
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.outputs import StepOutputHandle
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep
from dagster_hpc.steps import arguments, groups
from dagster_hpc.steps.arguments import needed_by
from dagster_hpc.steps.places import Place, place_of, srun_words

from hpc_agent.relay import step_requests
from tests.dagster_hpc.user_code import GROUP, JOB, fan

DIAMOND = {"a": set[str](), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}
"""d needs b and c, and both need a."""


@pytest.mark.parametrize(
    ("tags", "default", "place"),
    [
        ({}, "auto", Place.PROCESS),
        (JOB, "auto", Place.JOB),
        (GROUP, "auto", Place.JOB),
        ({}, "job", Place.JOB),
        (JOB, "in_process", Place.IN_PROCESS),
        ({"dagster-hpc/step": "process", **JOB}, "job", Place.PROCESS),
        ({"dagster-hpc/step": "srun"}, "auto", Place.SRUN),
    ],
)
def test_tags_say_where_a_step_runs(
    tags: dict[str, str], default: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own word first, then the executor's default."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert place_of(tags, default) is place


def test_srun_is_a_process_outside_of_an_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """And wrong words are told."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert place_of({"dagster-hpc/step": "srun"}, "auto") is Place.PROCESS
    with pytest.raises(ValueError, match="must be one of job, srun, process, in_process"):
        place_of({"dagster-hpc/step": "jbo"}, "auto")
    with pytest.raises(ValueError, match="mem"):
        place_of({"dagster-hpc/mem": "much"}, "auto")


def test_a_step_of_srun_takes_its_own_part() -> None:
    """One core and no claim on memory, unless it asks for more."""
    assert srun_words({})[-3:] == ["--cpus-per-task=1", "--ntasks=1", "--mem=0"]
    words = srun_words({"dagster-hpc/mem-per-cpu": "1G", "dagster-hpc/cpus-per-task": "2"})
    assert {"--mem-per-cpu=1G", "--cpus-per-task=2"} <= set(words)
    assert "--mem=0" not in words


def test_a_group_is_refused_when_a_step_between_is_not_in_it() -> None:
    """Nobody can run half of a job; nor can a member have a pool or another place."""
    grouped = {"a": GROUP, "b": {}, "c": GROUP, "d": GROUP}
    (error,) = groups.errors(grouped, DIAMOND, ())
    assert error.startswith("group together: step b is not in it")
    assert groups.errors({**grouped, "b": GROUP}, DIAMOND, ()) == []
    (pool,) = groups.errors({"a": GROUP, "b": GROUP}, DIAMOND, ["b"])
    assert "step b has a pool" in pool
    (place,) = groups.errors({"a": {**GROUP, "dagster-hpc/step": "in_process"}}, DIAMOND, ())
    assert "cannot run as in_process" in place


def test_a_group_departs_when_it_needs_nothing_from_outside() -> None:
    """Until then its ready steps wait."""
    pending = {"b": {"a"}, "d": {"b", "outside"}}
    assert groups.loads(["a"], pending, set()) == []
    assert groups.loads(["a"], pending, {"outside"}) == [["a", "b", "d"]]


def test_a_group_that_is_too_large_is_several_jobs() -> None:
    """The agent takes so many steps in one, and so long a word with what they are told."""
    assert groups.MOST_STEPS == step_requests.MOST_STEPS
    assert arguments.LONGEST == step_requests.LONGEST_WORD
    ready = [f"m{number}" for number in range(1500)]
    pending = {f"n{number}": {f"m{number}"} for number in range(1500)}
    assert groups.loads(ready, pending, set()) == [ready[:1000], ready[1000:]]
    (load,) = groups.loads(ready[:800], dict(list(pending.items())[:800]), set())
    assert load == [*ready[:800], *list(pending)[:200]]


def test_a_group_can_depart_in_parts() -> None:
    """Without what waits for others, and what needs that."""
    pending = {"b": {"a"}, "d": {"b", "outside"}, "e": {"d"}, "c": {"b"}}
    assert groups.part(["a"], pending, set()) == ["a", "b", "c"]


def test_a_mapped_step_is_told_of_itself_alone() -> None:
    """A collecting one of all: of a thousand siblings, a thousand jobs would be told otherwise."""
    keys = [str(number) for number in range(1000)]
    known = KnownExecutionState(
        previous_retry_attempts={"mapped[3]": 1, "mapped[4]": 2},
        dynamic_mappings={"fan_out": {"result": keys}},
        ready_outputs={StepOutputHandle("fan_out", "result", key) for key in keys}
        | {StepOutputHandle(f"mapped[{key}]", "result") for key in keys},
    )
    plan = create_execution_plan(fan, known_state=known)
    one, all_of_them = plan.get_step_by_key("mapped[3]"), plan.get_step_by_key("collected")
    assert isinstance(one, ExecutionStep)
    assert isinstance(all_of_them, ExecutionStep)
    told = needed_by([one], known)
    assert told.previous_retry_attempts == {"mapped[3]": 1}
    assert told.dynamic_mappings == {"fan_out": {"result": ["3"]}}
    again = create_execution_plan(fan, step_keys_to_execute=["mapped[3]"], known_state=told)
    assert again.step_keys_to_execute == ["mapped[3]"]
    collected = needed_by([all_of_them], known)
    assert len(collected.dynamic_mappings["fan_out"]["result"] or ()) == 1000
    assert len(collected.ready_outputs) == 1000
