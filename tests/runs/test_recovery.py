"""What follows when Slurm has ended a run's job, policy by policy."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_agent.config import Retries
from hpc_agent.errors import ConfigError
from hpc_agent.runs.recovery import (
    Asked,
    Change,
    NextAttempt,
    NoMore,
    decide,
    may_restart,
    policies_of,
    signals_left_open,
)
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from tests.workers import a_worker

NOTHING = NoMore()


def ended(state: JobState, **changes: Any) -> Worker:
    values: dict[str, Any] = {
        "key": "run-1",
        "kind": WorkerKind.RUN_WORKER,
        "phase": Phase.ENDED,
        "state": state,
        "deployment": "prod",
        "location": "here",
        "run_id": "r",
        "job_id": "7",
        "created_at": 0.0,
    }
    return a_worker(**(values | changes))


def retries(**policies: Any) -> Retries:
    return Retries.model_validate(policies)


EVERYTHING = retries(
    on_preempt="resubmit",
    on_node_fail="resubmit",
    on_boot_fail="resubmit",
    on_timeout="resubmit",
    on_out_of_memory="resubmit",
)
ASKED = Asked(options={"mem": "4G", "time": "01:00:00"})


@pytest.mark.parametrize(
    "state",
    [
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.DEADLINE,
        JobState.REVOKED,
        JobState.UNKNOWN,
    ],
)
def test_what_slurm_did_not_bring_about_is_never_retried(state: JobState) -> None:
    """User code that fails is Dagster's to retry, and what somebody cancelled is meant to end."""
    assert decide(ended(state), EVERYTHING, ASKED) == NOTHING


@pytest.mark.parametrize("phase", [Phase.LOST, Phase.REFUSED, Phase.WITHDRAWN])
def test_only_positive_evidence_starts_another_attempt(phase: Phase) -> None:
    """A lost job may be running somewhere."""
    assert decide(ended(JobState.NODE_FAIL, phase=phase), EVERYTHING, ASKED) == NOTHING


def test_run_that_was_terminated_gets_no_further_attempt() -> None:
    """Whatever else happened to its job."""
    assert decide(ended(JobState.NODE_FAIL, terminate_at=5.0), EVERYTHING, ASKED) == NOTHING


def test_by_default_only_a_node_that_did_not_boot_is_tried_again() -> None:
    """Nothing of the run can have been executed."""
    decided = {
        state: isinstance(decide(ended(state), Retries(), ASKED), NextAttempt)
        for state in (
            JobState.PREEMPTED,
            JobState.NODE_FAIL,
            JobState.BOOT_FAIL,
            JobState.TIMEOUT,
            JobState.OUT_OF_MEMORY,
        )
    }
    assert [state for state, is_next in decided.items() if is_next] == [JobState.BOOT_FAIL]


def test_memory_grows_by_its_factor_up_to_its_limit() -> None:
    """And where nothing more may be had, there is no attempt."""
    policies = retries(on_out_of_memory={"action": "resubmit", "mem_factor": 1.5, "max": "8G"})
    job = ended(JobState.OUT_OF_MEMORY)

    def changes(mem: str) -> object:
        decided = decide(job, policies, Asked(options={"mem": mem}))
        return decided.changes if isinstance(decided, NextAttempt) else decided

    assert changes("4G") == (Change(option="mem", old="4G", new="6G"),)
    assert changes("500") == (Change(option="mem", old="500", new="750M"),)
    assert changes("7g") == (Change(option="mem", old="7g", new="8G"),)
    assert changes("8G") == NoMore(reason="no attempt with more memory: 8G is the most it may have")


def test_memory_per_cpu_grows_where_that_was_asked() -> None:
    """The two options exclude each other."""
    decided = decide(
        ended(JobState.OUT_OF_MEMORY), EVERYTHING, Asked(options={"mem-per-cpu": "1G"})
    )
    assert isinstance(decided, NextAttempt)
    assert decided.overrides == {"mem-per-cpu": "2G"}


def test_memory_that_nobody_named_cannot_be_multiplied() -> None:
    """The message says what to set."""
    decided = decide(ended(JobState.OUT_OF_MEMORY), EVERYTHING, Asked())
    assert isinstance(decided, NoMore)
    assert "set dagster-hpc/mem" in decided.reason


@pytest.mark.parametrize(
    ("asked", "new"),
    [
        (Asked(options={"time": "01:00:00"}), "02:00:00"),
        (Asked(options={"time": "10"}), "00:20:00"),
        (Asked(options={"time": "1-12"}), "72:00:00"),
        (Asked(time_limit_seconds=300), "00:10:00"),
    ],
)
def test_time_grows_from_what_was_asked_or_what_slurm_gave(asked: Asked, new: str) -> None:
    """A job without a time limit of its own has its partition's."""
    decided = decide(ended(JobState.TIMEOUT), EVERYTHING, asked)
    assert isinstance(decided, NextAttempt)
    assert decided.overrides == {"time": new}


def test_attempts_end() -> None:
    """Restarts by Slurm count as well."""
    policies = retries(on_node_fail={"action": "resubmit", "attempts": 3})
    job = ended(JobState.NODE_FAIL, attempt=2)
    assert decide(job, policies, ASKED) == NextAttempt(number=3, limit=3)
    used_up = NoMore(reason="all 3 attempts of on_node_fail are used up")
    assert decide(ended(JobState.NODE_FAIL, attempt=3), policies, ASKED) == used_up
    assert decide(ended(JobState.NODE_FAIL, attempt=2, restart_count=1), policies, ASKED) == used_up


def test_restart_by_slurm_needs_a_policy_that_requeues() -> None:
    """An administrator's requeue of a run that nobody wants requeued ends it."""
    assert "no policy" in (may_restart(Retries(), 1) or "")
    policies = retries(on_preempt={"action": "requeue", "attempts": 3})
    assert may_restart(policies, 2) is None
    assert may_restart(policies, 3) == "all 3 attempts are used up"


@pytest.mark.parametrize(
    ("policies", "signals"),
    [
        ({}, []),
        ({"on_preempt": "resubmit"}, ["SIGTERM"]),
        ({"on_node_fail": "resubmit"}, ["SIGTERM"]),
        ({"on_node_fail": "requeue"}, ["SIGTERM"]),
        ({"on_timeout": "resubmit"}, ["SIGUSR1"]),
        ({"on_node_fail": "resubmit", "on_timeout": "resubmit"}, ["SIGTERM", "SIGUSR1"]),
    ],
)
def test_run_stays_open_after_the_signals_of_ends_that_another_attempt_follows(
    policies: dict[str, str], signals: list[str]
) -> None:
    """A worker that is asked to end closes its run, and a closed run cannot go on."""
    assert signals_left_open(retries(**policies), 1) == signals


def test_last_attempt_closes_its_run() -> None:
    """Each policy counts its own attempts; the one that still has some keeps the run open."""
    node_fail = {"action": "resubmit", "attempts": 2}
    assert signals_left_open(retries(on_node_fail=node_fail), 2) == []
    assert signals_left_open(retries(on_node_fail=node_fail, on_preempt="resubmit"), 2) == [
        "SIGTERM"
    ]


def test_tags_of_a_run_win_over_the_agents_policies() -> None:
    """A limit that the site has set holds unless the tag names another."""
    site = retries(on_timeout={"action": "fail", "max": "24:00:00"}, on_preempt="requeue")
    policies = policies_of(
        site,
        {
            "dagster-hpc/on-timeout": '{"action": "resubmit", "time_factor": 3}',
            "dagster-hpc/on-node-fail": "resubmit",
            "dagster-hpc/mem": "4G",
        },
    )
    assert (policies.on_timeout.action, policies.on_timeout.time_factor) == ("resubmit", 3)
    assert policies.on_timeout.max == "24:00:00"
    assert policies.on_node_fail.action == "resubmit"
    assert policies.on_preempt == site.on_preempt


@pytest.mark.parametrize(
    ("tag", "text", "message"),
    [
        ("on-premt", "requeue", "there is no such policy; there are dagster-hpc/on-preempt"),
        ("on-preempt", "reqeue", "'fail', 'requeue' or 'resubmit'"),
        ("on-timeout", "requeue", "'fail' or 'resubmit'"),
        ("on-timeout", '{"action": "resubmit", "mem_factor": 2}', "mem_factor"),
        ("on-timeout", '{"action": "resubmit", "time_factor": 1e999}', "time_factor"),
        ("on-out-of-memory", '{"action": "resubmit", "mem_factor": 1e999}', "mem_factor"),
        ("on-timeout", '{"a":' * 100_000, "nested more than"),
        ("on-timeout", '{"attempts": ' + "9" * 5000 + "}", "not valid JSON"),
        ("on-out-of-memory", '{"action": "resubmit", "max": "lots"}', "such as 64G"),
        ("on-node-fail", '{"action": ', "not valid JSON"),
    ],
)
def test_wrong_tag_is_named_with_what_is_wrong_with_it(tag: str, text: str, message: str) -> None:
    """Nothing is submitted on a guess."""
    with pytest.raises(ConfigError) as caught:
        policies_of(Retries(), {f"dagster-hpc/{tag}": text})
    assert f"tag dagster-hpc/{tag}: " in str(caught.value)
    assert message in str(caught.value)
