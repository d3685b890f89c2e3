"""Code locations: code servers as Slurm jobs, redeploys, code that does not load."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import EXAMPLE, Stack, example_location
from hpc_agent.inspection.status import read_status
from tests.cluster import SlurmCluster

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]

ENTRIES = """
query { workspaceOrError { ... on Workspace { locationEntries {
  name loadStatus displayMetadata { key value }
} } } }
"""
BROKEN = {"module_name": "broken_location.definitions"}


def statuses(stack: Stack, location: str) -> list[str]:
    """Return the statuses of a location's code servers that are not retired."""
    return [
        server["status"]
        for server in read_status(stack.config).code_servers
        if server["location"] == location
    ]


def shown_error(stack: Stack, location: str) -> dict[str, Any] | None:
    """Return the error that the webserver shows for a location."""
    error = stack.webserver.locations().get(location)
    return error if isinstance(error, dict) else None


def test_location_is_loaded_from_a_code_server_job(stack: Stack) -> None:
    """The definitions come from a job on a compute node."""
    server = stack.job_of(location="example")
    assert (server["kind"], server["state"]) == ("code_server", "RUNNING")
    found = stack.webserver.query(
        "query { assetNodes { assetKey { path } } "
        'schedulesOrError(repositorySelector: {repositoryLocationName: "example", '
        'repositoryName: "__repository__"}) { ... on Schedules { results { name } } } }'
    )
    assets = {"/".join(node["assetKey"]["path"]) for node in found["assetNodes"]}
    assert assets == {"raw_readings", "clean_readings", "summary", "daily_extremes"}
    schedules = {schedule["name"] for schedule in found["schedulesOrError"]["results"]}
    assert {"every_morning", "every_minute"} <= schedules


def test_redeploy_starts_the_new_server_before_the_old_one_goes(stack: Stack) -> None:
    """At no moment is there a location without a server."""
    before = stack.job_of(location="example")["key"]
    stack.deploy_example()

    def replaced() -> bool:
        assert "serving" in statuses(stack, "example")
        return bool(stack.job_of(location="example")["key"] != before)

    wait_for("no new server takes over", replaced, seconds=120, alive=[stack.agent])
    wait_for(
        "the old server does not go",
        lambda: statuses(stack, "example") == ["serving"],
        seconds=120,
        alive=[stack.agent],
    )
    assert stack.webserver.locations()["example"] is None


@contextmanager
def partition_down(cluster: SlurmCluster) -> Iterator[None]:
    """New jobs wait, as in a full cluster; those that run go on."""
    try:
        _set_partition(cluster, "DOWN")
        yield
    finally:
        _set_partition(cluster, "UP")


def test_redeploy_that_waits_in_the_queue_is_told(
    stack: Stack, slurm_cluster: SlurmCluster
) -> None:
    """With its job and Slurm's reason, on the location's page and by both commands' status."""

    def told_pending() -> str:
        text = _update_of(stack, "example")
        return text if "PENDING (" in text else ""

    with partition_down(slurm_cluster):
        stack.deploy_example()
        told = wait_for(
            "the location does not say that it is being updated",
            told_pending,
            seconds=60,
            alive=[stack.agent],
        )
        assert re.search(r"newer version, deployed at .* UTC, loads: job \d+, PENDING \(", told)
        assert "serves until then: job " in told
        assert stack.webserver.locations()["example"] is None
        rows = [
            row for row in read_status(stack.config).code_servers if row["status"] == "starting"
        ]
        assert [row["job"].partition(",")[0] for row in rows] == ["newer version"]
        assert "in the queue of partition " in rows[0]["job"]
    wait_for(
        "the location is not loaded anew",
        lambda: _update_of(stack, "example") == "" and statuses(stack, "example") == ["serving"],
        seconds=120,
        alive=[stack.agent],
    )


def _update_of(stack: Stack, location: str) -> str:
    """Return what the location's page says of a newer version; the entry is loading meanwhile."""
    entries = stack.webserver.query(ENTRIES)["workspaceOrError"]["locationEntries"]
    (entry,) = [each for each in entries if each["name"] == location]
    metadata = {each["key"]: each["value"] for each in entry["displayMetadata"]}
    assert (entry["loadStatus"] == "LOADING") == ("newer version" in metadata)
    return str(metadata.get("newer version", ""))


def _set_partition(cluster: SlurmCluster, state: str) -> None:
    argv = ["scontrol", "update", "PartitionName=debug", f"State={state}"]
    subprocess.run(argv, check=True, env=dict(cluster.environment))


def test_location_that_does_not_import_shows_its_traceback(stack: Stack) -> None:
    """The error is Python's own; other locations go on; a mended deploy clears it."""
    working_directory = str(EXAMPLE)
    broken = {"code_source": BROKEN, "working_directory": working_directory}
    stack.deploy({"example": example_location(), "broken": broken})
    error = wait_for(
        "the error does not show",
        lambda: (
            found
            if (found := shown_error(stack, "broken")) and "ImportError" in found["message"]
            else None
        ),
        seconds=120,
        alive=[stack.agent],
    )
    assert "broken_location" in error["message"] + "".join(error["stack"])
    stack.wait_loaded("example")
    run_id = stack.webserver.launch("example", "weather_job")
    assert stack.wait_finished(run_id) == "SUCCESS"
    mended = example_location() | {"working_directory": working_directory}
    stack.deploy({"example": example_location(), "broken": mended})
    stack.wait_loaded("broken", seconds=120)


def test_plan_partitions_and_subset_are_answered_by_the_code_server(stack: Stack) -> None:
    """What the webserver asks of a code location goes through the agent to the job and back."""
    found = stack.webserver.query(
        """
        query ($selector: PipelineSelector!, $repo: RepositorySelector!) {
          executionPlanOrError(pipeline: $selector, mode: "default", runConfigData: {}) {
            __typename ... on ExecutionPlan { steps { key } }
          }
          pipelineOrError(params: $selector) { __typename }
          partitionSetsOrError(repositorySelector: $repo, pipelineName: "archive_job") {
            ... on PartitionSets { results { name partitionsOrError(limit: 2) {
              __typename ... on Partitions { results { name tagsOrError {
                __typename ... on PartitionTags { results { key value } } }
              } } } } }
          }
        }
        """,
        {
            "selector": {
                "repositoryLocationName": "example",
                "repositoryName": "__repository__",
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": ["raw_readings"]}],
            },
            "repo": {
                "repositoryLocationName": "example",
                "repositoryName": "__repository__",
            },
        },
    )
    assert [step["key"] for step in found["executionPlanOrError"]["steps"]] == ["raw_readings"]
    partition = found["partitionSetsOrError"]["results"][0]["partitionsOrError"]["results"][0]
    tags = {tag["key"]: tag["value"] for tag in partition["tagsOrError"]["results"]}
    assert tags["dagster/partition"] == partition["name"]
