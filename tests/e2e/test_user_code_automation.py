"""What starts, follows, repeats and limits runs; docs/user-code.md has the table."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import httpx
import pytest
import yaml

from hpc_agent.control_plane.home import DAGSTER_YAML
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.private_directories import private_directory
from hpc_agent.private_files import write_private
from tests.cluster import SlurmCluster
from tests.control_plane.running import poll
from tests.e2e.conftest import choice_of, empty, say
from tests.e2e.test_user_code import location, messages

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(400)]

REPOSITORY = {"repositoryLocationName": "reacting", "repositoryName": "__repository__"}
START = """
mutation ($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) {
  __typename ... on PythonError { message }
} }
"""
COUNT = """
query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { count } } }
"""
FUTURE_TICKS = """
query ($schedule: ScheduleSelector!, $after: Float!) {
  scheduleOrError(scheduleSelector: $schedule) { ... on Schedule {
    futureTicks(cursor: $after, limit: 4) { results { timestamp } }
  } }
}
"""
DRY_RUN = """
mutation ($schedule: ScheduleSelector!, $at: Float!) {
  scheduleDryRun(selectorData: $schedule, timestamp: $at) { ... on DryRunInstigationTick {
    evaluationResult { error { message } runRequests { tags { key value } } }
  } }
}
"""
BERLIN = ZoneInfo("Europe/Berlin")


def dagster_yaml() -> str:
    """Return that of a fresh home, with shorter pauses, and a tag of runs that never start."""
    content = yaml.safe_load(DAGSTER_YAML)
    monitoring = content["run_monitoring"]
    assert monitoring["free_slots_after_run_end_seconds"] == 60
    monitoring |= {"poll_interval_seconds": 2, "free_slots_after_run_end_seconds": 2}
    content["run_coordinator"]["config"]["tag_concurrency_limits"] = [{"key": "flood", "limit": 0}]
    return yaml.safe_dump(content)


@pytest.fixture(scope="module")
def stack(slurm_cluster: SlurmCluster) -> Iterator[Stack]:
    """A stack with two locations of the same code, and one of many assets."""
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "relay": {"bind": "127.0.0.1"},
        "runs": {"grace_seconds": 5},
        "code_servers": {"placement": "login"},
    }
    with tempfile.TemporaryDirectory(prefix="hpc-e2e-", ignore_cleanup_errors=True) as path:
        directories = Directories(local=Path(path), shared=Path(path) / "shared")
        private_directory(directories.control_plane)
        write_private(directories.control_plane / "dagster.yaml", dagster_yaml())
        stack = Stack(choice_of(slurm_cluster), directories, say=say, settings=settings)
        with empty(stack):
            stack.deploy(
                {
                    "reacting": location("reacting"),
                    "elsewhere": location("reacting"),
                    "many": location("many"),
                }
            )
            for name in ("reacting", "elsewhere"):
                stack.wait_loaded(name)
            start_sensor(stack, "asks_for_many")
            yield stack


@pytest.fixture(scope="module")
def runs(stack: Stack) -> dict[str, str]:
    """The runs that tests look at, started at once, with the sensors that follow them."""
    for sensor in ("finds_cities", "sees_failures", "follows"):
        start_sensor(stack, sensor)
    assert stack.webserver.query(
        'mutation { setConcurrencyLimit(concurrencyKey: "licence", limit: 1) }'
    )["setConcurrencyLimit"]
    return {
        job: stack.webserver.launch(where, job)
        for where, job in (
            ("reacting", "retrying_runs"),
            ("reacting", "too_long"),
            ("reacting", "retrying_steps"),
            ("elsewhere", "adding_cities"),
            ("elsewhere", "endless_teardown"),
        )
    }


def start_sensor(stack: Stack, name: str) -> None:
    started = stack.webserver.query(START, {"sensor": REPOSITORY | {"sensorName": name}})
    assert started["startSensor"]["__typename"] == "Sensor", started


def tags_of(run: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def run_with(stack: Stack, tag: str, value: str) -> str:
    """Wait for a run with a tag, and return its id."""
    found = poll(
        lambda: stack.webserver.runs(tags=[{"key": tag, "value": value}]), f"{tag}={value}", 240
    )
    return str(found[0]["runId"])


def ends_too_late(stack: Stack, run_id: str) -> None:
    """Wait until a run has failed by its maximum runtime, and its job is over.

    Dagster asks for its end first and says that it has failed then: for a moment it can be
    CANCELED, by a worker that was quicker, and not by one that was slower.
    """
    poll(lambda: stack.webserver.status(run_id) == "FAILURE", "the run has failed", 180)
    stack.printed(run_id)
    assert stack.webserver.status(run_id) == "FAILURE", messages(stack, run_id)


def test_job_of_another_location_is_followed(stack: Stack, runs: dict[str, str]) -> None:
    """By a run status sensor with a JobSelector, which asks for a run here."""
    assert stack.wait_finished(runs["adding_cities"]) == "SUCCESS"
    following = run_with(stack, "dagster/run_key", runs["adding_cities"])
    assert stack.wait_finished(following) == "SUCCESS"


def test_failures_of_every_location_are_seen(stack: Stack, runs: dict[str, str]) -> None:
    """By a run failure sensor that monitors all; here one that the control plane has failed."""
    seen = stack.directories.shared / "data" / f"failed-{runs['too_long']}"
    poll(seen.exists, "a call of the sensor", 120)
    assert seen.read_text() == "too_long: Exceeded maximum runtime of 3 seconds."


def test_run_ends_after_its_maximum(stack: Stack, runs: dict[str, str]) -> None:
    """And so does its job."""
    ends_too_late(stack, runs["too_long"])
    assert "Exceeded maximum runtime of 3 seconds." in messages(stack, runs["too_long"])


def test_hanging_teardown_ends_after_the_maximum(stack: Stack, runs: dict[str, str]) -> None:
    """Its step has succeeded; the run has not until its resources are gone."""
    ends_too_late(stack, runs["endless_teardown"])


def test_steps_are_tried_again(stack: Stack, runs: dict[str, str]) -> None:
    """After a crash by their policy, and when they ask for it."""
    assert stack.wait_finished(runs["retrying_steps"]) == "SUCCESS"
    told = messages(stack, runs["retrying_steps"])
    for step in ("crashes_once", "wants_a_retry"):
        assert f'Started re-execution (attempt # 2) of step "{step}".' in told


def test_run_is_tried_again_after_its_worker_has_died(stack: Stack, runs: dict[str, str]) -> None:
    """By its tag, from the failure on; the slot of a pool that it held is free again."""
    assert stack.wait_finished(runs["retrying_runs"]) == "FAILURE"
    again = run_with(stack, "dagster/parent_run_id", runs["retrying_runs"])
    assert stack.wait_finished(again) == "SUCCESS", messages(stack, again)
    steps = {event.get("stepKey") for event in stack.webserver.events(again)}
    assert "kills_its_worker" in steps
    assert "succeeds_once" not in steps


def test_partitions_are_added_by_a_sensor(stack: Stack, runs: dict[str, str]) -> None:
    """And run in the same tick."""
    assert runs
    assert stack.wait_finished(run_with(stack, "dagster/partition", "Zürich / 1")) == "SUCCESS"


def test_partitions_are_added_by_an_op(stack: Stack, runs: dict[str, str]) -> None:
    """And are there at once."""
    assert stack.wait_finished(runs["adding_cities"]) == "SUCCESS"
    assert "there is Oslo: True" in messages(stack, runs["adding_cities"])


def test_schedule_keeps_to_its_time_zone(stack: Stack) -> None:
    """Half past two is at three o'clock in the night that lacks it."""
    schedule = {"schedule": REPOSITORY | {"scheduleName": "early"}}
    after = datetime(2026, 3, 27, 12, tzinfo=BERLIN).timestamp()
    found = stack.webserver.query(FUTURE_TICKS, schedule | {"after": after})
    moments = [
        datetime.fromtimestamp(tick["timestamp"], BERLIN)
        for tick in found["scheduleOrError"]["futureTicks"]["results"]
    ]
    assert [moment.strftime("%d %H:%M %z") for moment in moments[:3]] == [
        "28 02:30 +0100",
        "29 03:00 +0200",
        "30 02:30 +0200",
    ]
    evaluated = stack.webserver.query(DRY_RUN, schedule | {"at": moments[1].timestamp()})
    result = evaluated["scheduleDryRun"]["evaluationResult"]
    assert result["error"] is None
    assert tags_of(result["runRequests"][0])["moment"] == "2026-03-29T03:00:00+02:00"


def client(stack: Stack, token: str) -> Any:
    """Return Dagster's own client, as user code or a script makes it."""
    from dagster_graphql import DagsterGraphQLClient

    address = urlsplit(stack.webserver.url)
    assert address.hostname
    return DagsterGraphQLClient(
        address.hostname,
        port_number=address.port,
        use_https=True,
        headers={"Authorization": f"Bearer {token}"},
    )


# dagster-graphql 1.13 calls gql 4 in an older way.
@pytest.mark.filterwarnings("ignore:Using variable_values:DeprecationWarning")
def test_graphql_client_launches_runs(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a user's token; one that may only look is refused."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stack.directories.ca))
    mine = client(stack, stack.webserver.token)
    where = {"repository_location_name": "reacting", "repository_name": "__repository__"}
    run_id = mine.submit_job_execution("requested", **where)
    home = str(stack.directories.control_plane)
    made = stack.run_command(
        *("control-plane", "token", "create", "--home", home, "--kind", "user"),
        *("--name", "looks", "--role", "viewer"),
    )
    viewer = client(stack, made.split()[0])
    assert viewer.get_run_status(run_id)
    with pytest.raises(Exception, match="launchPipelineExecution"):
        viewer.submit_job_execution("requested", **where)
    assert stack.wait_finished(run_id) == "SUCCESS"


def test_command_line_launches_runs(stack: Stack) -> None:
    """On the control plane's host, as its account, with its home."""
    home = stack.directories.control_plane
    subprocess.run(
        [
            *(sys.executable, "-m", "dagster", "job", "launch"),
            *("-w", str(home / "workspace.yaml"), "-l", "reacting", "-j", "requested"),
            *("--tags", '{"by": "hand"}'),
        ],
        env=os.environ | {"DAGSTER_HOME": str(home)},
        check=True,
        capture_output=True,
    )
    assert stack.wait_finished(run_with(stack, "by", "hand")) == "SUCCESS"


def test_stock_command_without_a_token_is_refused(stack: Stack) -> None:
    """It has no option for one."""
    command = Path(sys.executable).with_name("dagster-graphql")
    done = subprocess.run(
        [str(command), "-r", stack.webserver.url, "-t", "{ version }"],
        env=os.environ | {"REQUESTS_CA_BUNDLE": str(stack.directories.ca)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "401 Client Error" in done.stderr


def test_pages_are_at_the_root(stack: Stack) -> None:
    """Whatever prefix is asked for: scripts and calls of the page go to the root."""
    address = urlsplit(stack.webserver.url)
    trust = ssl.create_default_context(cafile=str(stack.directories.ca))
    token = {"Authorization": f"Bearer {stack.webserver.token}"}
    page = httpx.get(f"{address.geturl()}/dagster/runs", verify=trust, headers=token).text
    assert '"pathPrefix": ""' in page


def test_two_thousand_assets_are_loaded(stack: Stack) -> None:
    """Within the limits of uploads and calls."""
    stack.wait_loaded("many")
    found = stack.webserver.query(
        """query ($repository: RepositorySelector!) {
          repositoryOrError(repositorySelector: $repository) {
            ... on Repository { assetNodes { id } }
          }
        }""",
        {"repository": REPOSITORY | {"repositoryLocationName": "many"}},
    )
    assert len(found["repositoryOrError"]["assetNodes"]) == 2000


def test_two_hundred_runs_of_one_tick_are_queued(stack: Stack) -> None:
    """Each of its key once."""
    flood = {"filter": {"tags": [{"key": "flood", "value": "yes"}]}}

    def queued() -> bool:
        found: int = stack.webserver.query(COUNT, flood)["runsOrError"]["count"]
        return found >= 200

    poll(queued, "200 runs", 300)
    assert stack.webserver.query(COUNT, flood)["runsOrError"]["count"] == 200
