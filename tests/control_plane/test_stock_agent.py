"""The stock Dagster+ agent works against our control plane; only the gateway is ours here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.control_plane.running import (
    ControlPlane,
    poll,
    running_control_plane,
    running_stock_agent,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

USER_CODE = Path(__file__).parent / "user_code"


def write_deploy_file(path: Path, **sources: Path) -> str:
    locations = [
        {"location_name": name, "code_source": {"python_file": str(source)}}
        for name, source in sources.items()
    ]
    path.write_text(yaml.safe_dump({"locations": locations}))
    return str(path)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with one location, and no agent yet."""
    directory = tmp_path_factory.mktemp("plane")
    with running_control_plane(directory / "home") as running:
        file = write_deploy_file(directory / "one.yaml", pipelines=USER_CODE / "pipelines.py")
        running.cli("deploy", file)
        yield running


@pytest.fixture(scope="module")
def loaded(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The same with a stock agent, once the location has loaded."""
    directory = tmp_path_factory.mktemp("agent")
    with running_stock_agent(plane, directory / "agent"):
        try:
            poll(lambda: plane.is_loaded("pipelines"), "location pipelines loads")
        except AssertionError as error:
            raise AssertionError((directory / "agent" / "agent.log").read_text()) from error
        yield plane


def test_location_without_agent_says_what_is_missing(plane: ControlPlane) -> None:
    """Before any agent has connected, the UI says so and tells what to do."""
    location = poll(lambda: plane.location("pipelines"), "the UI knows the location")

    assert location["__typename"] == "PythonError"
    assert "no agent has connected yet" in location["message"]


def test_job_with_assets_runs_to_success(loaded: ControlPlane) -> None:
    """A launched run succeeds; its events, metadata and compute logs can be read in the UI."""
    run_id = loaded.launch("sums")

    loaded.wait_for_run(run_id, "SUCCESS")
    assert "rows: 3" in loaded.messages(run_id)
    assert materialized_rows(loaded, "numbers") == 3
    assert "a line on stdout" in stdout_of_run(loaded, run_id)


def materialized_rows(plane: ControlPlane, asset: str) -> int | None:
    data = plane.query(
        """query A($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
             assetMaterializations(limit: 1) { metadataEntries { label
               ... on IntMetadataEntry { intValue } } } } } }""",
        key={"path": [asset]},
    )
    entries = data["assetOrError"]["assetMaterializations"][0]["metadataEntries"]
    return next((entry["intValue"] for entry in entries if entry["label"] == "rows"), None)


def stdout_of_run(plane: ControlPlane, run_id: str) -> str:
    events = plane.query(
        """query E($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
             ... on LogsCapturedEvent { fileKey } } } } }""",
        id=run_id,
    )["logsForRun"]["events"]
    output = ""
    for key in {event["fileKey"] for event in events if event.get("fileKey")}:
        captured: Any = plane.query(
            "query C($key: [String!]!) { capturedLogs(logKey: $key) { stdout } }",
            key=[run_id, "compute_logs", key],
        )
        output += captured["capturedLogs"]["stdout"] or ""
    return output


def test_sensor_is_evaluated_by_the_agent(loaded: ControlPlane) -> None:
    """The stock daemon ticks a sensor whose code runs in the agent's code server."""
    assert poll(lambda: skipped_ticks(loaded), "the sensor ticks twice") >= 2


def skipped_ticks(plane: ControlPlane) -> int | None:
    data = plane.query(
        """query S($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor {
             sensorState { ticks(limit: 20) { status skipReason error { message } } } } } }""",
        s={
            "sensorName": "watcher",
            "repositoryName": "__repository__",
            "repositoryLocationName": "pipelines",
        },
    )
    ticks = data["sensorOrError"]["sensorState"]["ticks"]
    failed = [tick for tick in ticks if tick["error"] and "not loaded" not in str(tick["error"])]
    assert not failed, failed
    # A cursor that moved on shows that the tick's result came back whole.
    reasons = {tick["skipReason"] for tick in ticks if tick["status"] == "SKIPPED"}
    return len(reasons) if len(reasons) >= 2 else None


def test_schedule_can_be_tried_out(loaded: ControlPlane) -> None:
    """A schedule's dry run is answered by the code server."""
    data = loaded.query(
        """mutation D($s: ScheduleSelector!) {
             scheduleDryRun(selectorData: $s, timestamp: 1735689600) {
             __typename ... on PythonError { message }
             ... on DryRunInstigationTick { evaluationResult { runRequests { runKey
               tags { key value } } error { message } } } } }""",
        s={
            "scheduleName": "yearly",
            "repositoryName": "__repository__",
            "repositoryLocationName": "pipelines",
        },
    )

    result = data["scheduleDryRun"]["evaluationResult"]
    assert result["error"] is None
    assert {"key": "made", "value": "by schedule"} in result["runRequests"][0]["tags"]


def test_running_job_is_terminated(loaded: ControlPlane, tmp_path: Path) -> None:
    """Terminating a run ends its worker and cancels the run."""
    started = tmp_path / "started"
    config = {"ops": {"wait_forever": {"config": {"started": str(started)}}}}
    run_id = loaded.launch("endless", config)
    poll(started.exists, "the op has started")

    answer = loaded.query(
        """mutation T($id: String!) { terminateRun(runId: $id) { __typename
             ... on TerminateRunFailure { message } ... on PythonError { message } } }""",
        id=run_id,
    )

    assert answer["terminateRun"]["__typename"] == "TerminateRunSuccess", answer
    loaded.wait_for_run(run_id, "CANCELED")


def test_broken_location_shows_its_traceback(loaded: ControlPlane, tmp_path: Path) -> None:
    """User code that fails to load shows its own error, and does not hide other locations."""
    file = write_deploy_file(tmp_path / "two.yaml", broken=USER_CODE / "broken.py")
    loaded.cli("deploy", file)

    poll(lambda: "on purpose" in load_error(loaded, "broken"), "the UI shows the load error")
    assert 'broken.py", line 3' in load_error(loaded, "broken")
    assert loaded.is_loaded("pipelines")


def load_error(plane: ControlPlane, name: str) -> str:
    """Return a location's error as the UI shows it: message and traceback of it and its causes."""
    location = plane.location(name) or {}
    errors = [location, *(link["error"] for link in location.get("errorChain", ()))]
    return "".join(part for e in errors for part in (e.get("message", ""), *e.get("stack", ())))


def test_reload_in_the_ui_brings_new_code(loaded: ControlPlane, tmp_path: Path) -> None:
    """The reload button redeploys: the agent starts a new code server, and changes show up."""
    source = tmp_path / "changing.py"
    source.write_text("raise ValueError('first on purpose')")
    loaded.cli("deploy", write_deploy_file(tmp_path / "changing.yaml", changing=source))
    poll(lambda: "first on purpose" in load_error(loaded, "changing"), "the first error")

    source.write_text("import dagster as dg\ndefs = dg.Definitions(jobs=[])\n")
    loaded.query(
        """mutation { reloadRepositoryLocation(repositoryLocationName: "changing") {
             __typename } }"""
    )

    poll(lambda: loaded.is_loaded("changing"), "the corrected code loads")
