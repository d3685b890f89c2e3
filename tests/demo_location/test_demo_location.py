"""The example code location does what a first look at the UI needs."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

dg = pytest.importorskip("dagster", reason="the control-plane extra is not installed")

# Dagster's own use of pydantic.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def definitions() -> Any:
    return importlib.import_module("example_location.definitions").defs


def run(job: str, **arguments: Any) -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        found = definitions().resolve_job_def(job)
        return found.execute_in_process(instance=instance, **arguments)


def metadata_of(result: Any, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return dict(event.metadata)


def test_the_location_holds_one_of_everything() -> None:
    """All definitions resolve, and each kind of thing that the UI shows is there."""
    defs = definitions()
    dg.Definitions.validate_loadable(defs)
    repository = defs.get_repository_def()
    assert {"weather_job", "archive_job", "sleepy_job", "failing_job"} <= set(repository.job_names)
    assert "stepwise_job" in repository.job_names
    assert repository.schedule_defs
    assert repository.sensor_defs
    graph = repository.asset_graph
    assert len(graph.asset_check_keys) == 1
    assert graph.get(dg.AssetKey("daily_extremes")).is_partitioned
    assert graph.get(dg.AssetKey("summary")).parent_keys == {dg.AssetKey("clean_readings")}


def test_assets_carry_metadata_of_each_kind() -> None:
    """Row count, column schema, Markdown, URL, JSON and numbers reach the materializations."""
    result = run("weather_job")
    raw, clean, summary = (
        metadata_of(result, name) for name in ("raw_readings", "clean_readings", "summary")
    )
    columns = clean["dagster/column_schema"].value.columns
    assert raw["dagster/row_count"].value == 72
    assert clean["dagster/row_count"].value < 72
    assert [column.name for column in columns] == ["station", "hour", "celsius"]
    assert "| helgoland |" in summary["report"].value
    assert raw["source"].value.startswith("https://")
    assert set(summary["means"].value) == {"feldberg", "helgoland", "zugspitze"}
    assert -60 < summary["mean"].value < 60


def test_output_goes_to_both_streams(capfd: pytest.CaptureFixture[str]) -> None:
    """There is something to see in stdout and in stderr."""
    run("weather_job")
    captured = capfd.readouterr()
    assert "read 24 hours from helgoland" in captured.out
    assert "readings are missing" in captured.err


@pytest.mark.parametrize(("hours", "passed"), [(24, True), (2, False)])
def test_the_check_notices_silent_stations(hours: int, passed: bool) -> None:
    """The asset check passes on a full day and warns about a short one."""
    assets = importlib.import_module("example_location.assets")
    stations = importlib.import_module("example_location.stations")
    readings = stations.StationNetwork(hours=hours).read()
    clean = [reading for reading in readings if assets.is_plausible(reading)]
    assert assets.every_station_reported(clean).passed is passed


def test_a_partition_has_a_file_of_its_own(data: Path) -> None:
    """Each day is stored under its name."""
    run("archive_job", partition_key="2026-01-02")
    stored = json.loads((data / "daily_extremes" / "2026-01-02.json").read_text())
    assert stored["lowest"] < stored["highest"]


def test_missing_input_says_what_to_do() -> None:
    """The failure names the file, the asset and the setting."""
    storage = importlib.import_module("example_location.storage")
    context = dg.build_input_context(asset_key=dg.AssetKey("raw_readings"))
    with pytest.raises(dg.Failure, match="HPC_AGENT_DEMO_DATA"):
        storage.JsonFiles().load_input(context)


def test_the_sleepy_job_sleeps_as_long_as_told(capfd: pytest.CaptureFixture[str]) -> None:
    """Seconds come from the run configuration, and progress is printed."""
    result = run("sleepy_job", run_config={"ops": {"sleep_and_tell": {"config": {"seconds": 1}}}})
    assert result.output_for_node("sleep_and_tell") == 1
    assert "slept 0 of 1 s" in capfd.readouterr().out


def test_the_failing_job_fails_with_its_reason() -> None:
    """A failure carries message and metadata."""
    result = run("failing_job", raise_on_error=False)
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert "diverged" in failure.step_failure_data.user_failure_data.description


def test_the_sensor_asks_for_a_run_per_new_file(data: Path) -> None:
    """Nothing at first, one request per file, and no request twice."""
    sensor = importlib.import_module("example_location.automation").new_request_file
    with dg.build_sensor_context() as context:
        assert "no new file" in sensor.evaluate_tick(context).skip_message
    (data / "requests").mkdir(parents=True)
    (data / "requests" / "a").touch()
    (data / "requests" / "b").touch()
    with dg.build_sensor_context() as context:
        tick = sensor.evaluate_tick(context)
    assert [request.run_key for request in tick.run_requests] == ["a", "b"]
    with dg.build_sensor_context(cursor=tick.cursor) as context:
        assert not sensor.evaluate_tick(context).run_requests


def test_assets_pass_data_between_processes(location: Path, tmp_path: Path) -> None:
    """Under the multiprocess executor each step is a process that reads what another wrote."""
    home = tmp_path / "home"
    home.mkdir()
    command = ["-m", "dagster", "job", "execute", "-m", "example_location.definitions"]
    result = subprocess.run(
        [sys.executable, *command, "-j", "weather_job"],
        cwd=location,
        env={**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(location)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "RUN_SUCCESS" in result.stderr


@pytest.mark.parametrize("name", ["dagster_cloud.yaml", "with_broken_location.yaml"])
def test_dagster_s_own_tool_accepts_the_file(name: str, location: Path) -> None:
    """The file is valid by the model of the Dagster+ command line."""
    models = pytest.importorskip("dagster_cloud_cli.config.models")
    content = yaml.safe_load((location / name).read_text())
    parsed = models.DagsterCloudYaml.model_validate(content)
    assert parsed.locations[0].location_name == "example"
    for entry in parsed.locations:
        module = entry.code_source.module_name.replace(".", "/")
        assert (location / entry.working_directory / f"{module}.py").is_file()


def test_the_broken_location_says_why() -> None:
    """Its import fails with a message that one recognizes in the UI."""
    with pytest.raises(ImportError, match="broken on purpose"):
        importlib.import_module("broken_location.definitions")
