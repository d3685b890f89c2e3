"""Without Slurm: the same path with child processes for jobs, as an ordinary user has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpc_agent.demo.cluster import choose_cluster
from hpc_agent.demo.facts import gather
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from hpc_agent.errors import HpcAgentError
from tests.e2e.conftest import running_stack, say
from tests.e2e.test_runs import engine_lines, nap, wait_running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on the local scheduler, its compute logs kept at home."""
    cluster = choose_cluster("local", tmp_path_factory.mktemp("unused"), say)
    policy = {"max": {"time": "01:00:00"}, "forbid": ["account"]}
    with running_stack(cluster, compute_logs={"enabled": False}, policy=policy) as started:
        yield started


def test_run_materializes_assets_as_a_process(local_stack: Stack) -> None:
    """A run goes through; compute logs stay where they are when that is asked for."""
    run_id = local_stack.webserver.launch(
        "example", "__ASSET_JOB", tags={"dagster/partition": "2026-01-01"}
    )
    assert local_stack.wait_finished(run_id) == "SUCCESS"
    facts = gather(local_stack, run_id, location="example")
    assert set(facts.assets) == {"raw_readings", "clean_readings", "summary", "daily_extremes"}
    assert all(facts.assets.values())
    assert facts.compute_log_bytes == 0
    stdout = local_stack.run_command(
        *("logs", run_id, "--stream", "stdout"),
        *("--config", str(local_stack.directories.agent_yaml)),
    )
    assert "read 24 hours from" in stdout


def test_termination_reaches_the_process(local_stack: Stack) -> None:
    """Canceled by signal, like in a job."""
    run_id = nap(local_stack, 120)
    wait_running(local_stack, run_id)
    local_stack.webserver.terminate(run_id)
    assert local_stack.wait_finished(run_id, seconds=60) == "CANCELED"
    wait_for(
        "the end of the job is not told",
        lambda: any("CANCELLED as requested" in line for line in engine_lines(local_stack, run_id)),
        seconds=30,
    )


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("time", "10:00:00", "policy.max.time"),
        ("account", "someone", "run tags may not set account (policy.forbid)"),
    ],
)
def test_run_against_the_policy_of_the_site_fails_with_the_rules_text(
    local_stack: Stack, option: str, value: str, rule: str
) -> None:
    """The rule is in the run's log, and there is no job."""
    tags = {f"dagster-hpc/{option}": value}
    run_id = local_stack.webserver.launch("example", "sleepy_job", tags=tags)
    assert local_stack.wait_finished(run_id, seconds=60) == "FAILURE"
    told = str(local_stack.webserver.events(run_id)).replace("\\'", "'")
    assert "the site's policy forbids this job" in told
    assert rule in told
    with pytest.raises(HpcAgentError, match="no job"):
        local_stack.job_of(run_id=run_id)
