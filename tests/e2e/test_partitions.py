"""Runs that name no partition get one by their limits, on a cluster whose nodes all have GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hpc_agent.demo.stack import Stack
from hpc_agent.errors import HpcAgentError
from tests.cluster import SlurmCluster
from tests.e2e.conftest import choice_of, running_stack
from tests.e2e.test_runs import engine_lines, nap

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]

A_GPU = {"dagster-hpc/gres": "gpu:1", "dagster-hpc/time": "45"}


@pytest.fixture(scope="module")
def stack(slurm_cluster_accounting: SlurmCluster) -> Iterator[Stack]:
    with running_stack(
        choice_of(slurm_cluster_accounting),
        scheduler={"poll_seconds": 2, "commands_per_second": 20},
        relay={"bind": "127.0.0.1"},
        code_servers={"placement": "login"},
        runs={"choose_partition": True},
    ) as started:
        yield started


def explained(stack: Stack, *arguments: str) -> dict[str, Any]:
    """Return what `options explain` says of runs."""
    config = str(stack.directories.agent_yaml)
    content = stack.run_command("options", "explain", *arguments, "--config", config, "--json")
    found: dict[str, Any] = json.loads(content)[-1]
    return found


def test_run_gets_the_partition_that_takes_it(stack: Stack) -> None:
    """The longer one; its log and `options explain` say so, and why not the other."""
    run_id = nap(stack, 0, **A_GPU)
    assert stack.wait_finished(run_id) == "SUCCESS"
    found = explained(stack, run_id)
    (partition,) = (row for row in found["settings"] if row["option"] == "partition")
    assert partition["value"] == "batch"
    assert "partition debug: MaxTime is 30 minutes, the job asks for 45" in found["notes"]
    assert any("partition is batch" in line for line in engine_lines(stack, run_id))


def test_dry_run_says_what_runs_with_these_tags_would_get(stack: Stack) -> None:
    """Both where both take it; nothing is submitted."""
    tags = [word for tag in A_GPU.items() for word in ("--tag", "=".join(tag))]
    assert "partition batch: taken" in " ".join(explained(stack, "example", *tags)["notes"])
    tags = ["--tag", "dagster-hpc/gpus=1", "--tag", "dagster-hpc/time=5"]
    short = explained(stack, "example", *tags)
    assert any(row["value"] == "batch,debug" for row in short["settings"])


def test_run_that_no_partition_takes_is_told_why_not_of_each(stack: Stack) -> None:
    """A job without GPUs gets no partition of GPUs, unless it names it."""
    run_id = nap(stack, 0)
    assert stack.wait_finished(run_id) == "FAILURE"
    told = json.dumps(stack.webserver.events(run_id))
    for name in ("batch", "debug"):
        assert f"{name}: its nodes have GPUs, and the job asks for none" in told
    with pytest.raises(HpcAgentError, match="no partition takes this job"):
        explained(stack, "example")
    named = explained(stack, "example", "--tag", "dagster-hpc/partition=debug,batch")
    assert any(row["value"] == "debug,batch" for row in named["settings"])
