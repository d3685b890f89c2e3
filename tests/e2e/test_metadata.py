"""All that Dagster knows of code and runs arrives in the webserver through agent and relay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.demo.cluster import choose_cluster
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from tests.e2e.conftest import empty_stack, say
from tests.e2e.metadata import ITEMS, REPOSITORY, Item

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

TEN_DAYS = [f"2026-01-{day:02}" for day in range(3, 13)]
PARTITIONS: Mapping[str, Mapping[str, str]] = {
    "by_region": {"dagster/partition": "north"},
    "by_customer": {"dagster/partition": "acme"},
    "by_day_and_region": {
        "dagster/partition": "2026-01-02|south",
        "dagster/partition/day": "2026-01-02",
        "dagster/partition/region": "south",
    },
}
FOLLOWERS = ("seen_by_daemon", "seen_by_user_code")
EVALUATIONS = """query ($key: AssetKeyInput!) {
  assetConditionEvaluationRecordsOrError(assetKey: $key, limit: 50) {
    ... on AssetConditionEvaluationRecords { records { numRequested runIds timestamp } }
  }
}"""
TICKS = """query ($instigator: InstigationSelector!) {
  instigationStateOrError(instigationSelector: $instigator) { ... on InstigationState {
    status ticks(limit: 50) {
      status timestamp endTimestamp runIds runKeys error { message } requestedAssetKeys { path }
    }
  } }
}"""
BACKFILL = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill {
    status isAssetBackfill tags { key value } error { message }
    runs { runId status }
    assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
      assetKey { path } numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
    } } }
  }
} }"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A stack that has run everything once, and the run of its job ``sales``."""

    stack: Stack
    run_id: str

    def query(self, document: str, **variables: Any) -> dict[str, Any]:
        """Ask the webserver."""
        return self.stack.webserver.query(document, variables)

    def ticks(self, name: str) -> list[dict[str, Any]]:
        """Return the ticks of a schedule or sensor, newest first."""
        answer = self.query(TICKS, instigator=_instigator(name))
        return list(answer["instigationStateOrError"]["ticks"])

    def tick_with_runs(self, name: str) -> dict[str, Any] | None:
        """Return the newest tick that has launched runs and is over, which it is a bit later."""
        over = (tick for tick in self.ticks(name) if tick["status"] != "STARTED")
        return next((tick for tick in over if tick["runIds"]), None)

    def wait(self, problem: str, condition: Any) -> Any:
        """Wait for what the daemon does by itself."""
        alive = [self.stack.agent, self.stack.control_plane]
        return wait_for(problem, condition, seconds=180, alive=alive)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Start the stack, and make the run and the partitions that the items are about."""
    cluster = choose_cluster("local", tmp_path_factory.mktemp("unused"), say)
    scheduler = {"poll_seconds": 2, "local_slots": 8}
    with empty_stack(cluster, scheduler=scheduler) as stack:
        entry = {
            "code_source": {"module_name": "metadata_location.definitions"},
            "working_directory": str(Path(__file__).parent),
        }
        stack.deploy({"metadata": entry})
        stack.wait_loaded("metadata")
        _start_schedule(stack, "next_minute")
        stack.webserver.query(
            """mutation ($repository: RepositorySelector!) { addDynamicPartition(
              partitionKey: "acme", partitionsDefName: "customers", repositorySelector: $repository
            ) { __typename } }""",
            {"repository": REPOSITORY},
        )
        run_id = stack.webserver.launch("metadata", "sales", tags={"asked-by": "test"})
        others = [
            stack.webserver.launch("metadata", "__ASSET_JOB", assets=[asset], tags=tags)
            for asset, tags in PARTITIONS.items()
        ]
        ends = {run: stack.wait_finished(run) for run in (run_id, *others)}
        assert set(ends.values()) == {"SUCCESS"}
        yield Told(stack=stack, run_id=run_id)


@pytest.fixture(scope="module")
def backfills(told: Told) -> dict[str, str]:
    """Launch both backfills at once: the daemon looks after them only every 30 s."""
    return {asset: _launch_backfill(told, asset) for asset in ("by_day", "by_day_at_once")}


@pytest.fixture(scope="module")
def followed(told: Told) -> None:
    """Start both automation sensors, then make new data that they follow."""
    for asset in FOLLOWERS:
        started = told.query(
            """mutation ($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) {
              __typename ... on PythonError { message } } }""",
            sensor=REPOSITORY | {"sensorName": f"{asset}_sensor"},
        )["startSensor"]
        assert started["__typename"] == "Sensor", started
    for asset in FOLLOWERS:
        # What was there before the first tick is no news to an eager condition.
        told.wait(f"the sensor of {asset} does not tick", lambda of=asset: _evaluated(told, of))
    update = told.stack.webserver.launch("metadata", "sales")
    assert told.stack.wait_finished(update) == "SUCCESS"


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.what)
def test_webserver_shows(told: Told, item: Item) -> None:
    """What user code says of itself, and what a run left, is there as it was said."""
    variables = {**item.variables, **({"run": told.run_id} if "$run" in item.document else {})}
    assert item.pick(told.query(item.document, **variables)) == item.expected


@pytest.mark.parametrize(
    ("asset", "runs"),
    [("by_day", 10), ("by_day_at_once", 1)],
    ids=["a run for each partition", "one run for all partitions"],
)
def test_backfill_over_ten_partitions_completes(
    told: Told, backfills: dict[str, str], asset: str, runs: int
) -> None:
    """The daemon runs the backfill, the agent its runs, and the webserver counts what is there."""

    def look() -> dict[str, Any] | None:
        found = told.query(BACKFILL, id=backfills[asset])["partitionBackfillOrError"]
        return None if found["status"] == "REQUESTED" else dict(found)

    done = told.wait(f"the backfill of {asset} does not end", look)

    assert (done["status"], done["isAssetBackfill"]) == ("COMPLETED_SUCCESS", True), done
    assert [run["status"] for run in done["runs"]] == ["SUCCESS"] * runs
    assert {"key": "asked-by", "value": "backfill"} in done["tags"]
    assert done["assetBackfillData"]["assetBackfillStatuses"] == [
        {
            "assetKey": {"path": [asset]},
            "numPartitionsTargeted": 10,
            "numPartitionsMaterialized": 10,
            "numPartitionsFailed": 0,
        }
    ]
    assert _materialized(told, asset) == TEN_DAYS
    assert all(told.stack.job_of(run_id=run["runId"])["job_id"] for run in done["runs"])


@pytest.mark.parametrize("asset", FOLLOWERS)
@pytest.mark.usefixtures("followed")
def test_automation_condition_launches_a_run(told: Told, asset: str) -> None:
    """A started sensor sees the new data of a dependency, wherever its conditions are evaluated."""
    sensor = f"{asset}_sensor"
    tick = told.wait(
        f"{sensor} launches no run",
        lambda: told.tick_with_runs(sensor),
    )
    assert tick["status"] == "SUCCESS"
    assert tick["requestedAssetKeys"] == [{"path": [asset]}]
    assert told.stack.wait_finished(tick["runIds"][0]) == "SUCCESS"
    run = told.stack.webserver.run(tick["runIds"][0])
    assert {"key": "asked-by", "value": asset} in run["tags"]
    assert [item["assetKey"]["path"] for item in run["assetMaterializations"]] == [[asset]]
    records = _evaluations(told, asset)
    assert [record["runIds"] for record in records if record["numRequested"]] == [tick["runIds"]]


def test_schedule_has_a_history(told: Told) -> None:
    """The ticks of a schedule are there, with the run that the first of them asked for."""
    tick = told.wait(
        "the schedule launches no run",
        lambda: told.tick_with_runs("next_minute"),
    )
    assert (tick["status"], tick["runKeys"], tick["error"]) == ("SUCCESS", ["once"], None)
    assert tick["timestamp"] % 60 == 0
    assert told.stack.wait_finished(tick["runIds"][0]) == "SUCCESS"
    run = told.stack.webserver.run(tick["runIds"][0])
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert (tags["asked-by"], tags["dagster/schedule_name"]) == ("next_minute", "next_minute")


def _launch_backfill(told: Told, asset: str) -> str:
    launched = told.query(
        """mutation ($backfill: LaunchBackfillParams!) {
          launchPartitionBackfill(backfillParams: $backfill) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
          }
        }""",
        backfill={
            "assetSelection": [{"path": [asset]}],
            "partitionNames": TEN_DAYS,
            "tags": [{"key": "asked-by", "value": "backfill"}],
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def _start_schedule(stack: Stack, name: str) -> None:
    started = stack.webserver.query(
        """mutation ($schedule: ScheduleSelector!) {
          startSchedule(scheduleSelector: $schedule) { __typename ... on PythonError { message } }
        }""",
        {"schedule": REPOSITORY | {"scheduleName": name}},
    )["startSchedule"]
    assert started["__typename"] == "ScheduleStateResult", started


def _instigator(name: str) -> dict[str, str]:
    return REPOSITORY | {"name": name}


def _evaluations(told: Told, asset: str) -> list[dict[str, Any]]:
    answer = told.query(EVALUATIONS, key={"path": [asset]})
    return list(answer["assetConditionEvaluationRecordsOrError"]["records"])


def _evaluated(told: Told, asset: str) -> bool:
    failed = [tick for tick in told.ticks(f"{asset}_sensor") if tick["error"]]
    assert not failed, failed[0]
    return bool(_evaluations(told, asset))


def _materialized(told: Told, asset: str) -> list[str]:
    node = told.query(
        """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
          latestMaterializationByPartition { partition } } } }""",
        key={"path": [asset]},
    )["assetNodeOrError"]
    return [found["partition"] for found in node["latestMaterializationByPartition"] if found]
