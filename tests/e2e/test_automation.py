"""Schedules and sensors tick through the agent and launch runs."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(400)]

REPOSITORY = {"repositoryLocationName": "example", "repositoryName": "__repository__"}


def started_runs(stack: Stack, tag: str) -> list[dict[str, Any]]:
    """Return the runs that carry a tag."""
    return [
        run for run in stack.webserver.runs() if any(item["key"] == tag for item in run["tags"])
    ]


def test_schedule_ticks_and_launches_a_run(stack: Stack) -> None:
    """The daemon evaluates the schedule in the code server's job; its run becomes a job."""
    stack.webserver.query(
        """mutation ($schedule: ScheduleSelector!) {
          startSchedule(scheduleSelector: $schedule) { __typename ... on PythonError { message } }
        }""",
        {"schedule": REPOSITORY | {"scheduleName": "every_minute"}},
    )
    try:
        runs = wait_for(
            "the schedule launches no run",
            lambda: started_runs(stack, "dagster/schedule_name"),
            seconds=150,
            alive=[stack.agent, stack.control_plane],
        )
    finally:
        stop_schedule(stack)
    assert stack.wait_finished(runs[-1]["runId"]) == "SUCCESS"


def test_sensor_ticks_and_launches_a_run(stack: Stack) -> None:
    """A sensor sees a new file on the cluster's file system and asks for a run."""
    requests = stack.directories.shared / "data" / "requests"
    requests.mkdir(parents=True, exist_ok=True)
    sensor = REPOSITORY | {"sensorName": "new_request_file"}
    stack.webserver.query(
        """mutation ($sensor: SensorSelector!) {
          startSensor(sensorSelector: $sensor) { __typename ... on PythonError { message } }
        }""",
        {"sensor": sensor},
    )
    (requests / "a-request").touch()
    runs = wait_for(
        "the sensor launches no run",
        lambda: started_runs(stack, "dagster/sensor_name"),
        seconds=120,
        alive=[stack.agent, stack.control_plane],
    )
    stop_sensor(stack, sensor)
    assert {tag["value"] for tag in runs[0]["tags"] if tag["key"] == "request"} == {"a-request"}
    assert stack.wait_finished(runs[0]["runId"]) == "SUCCESS"


def stop_schedule(stack: Stack) -> None:
    """Stop the schedule again."""
    state = stack.webserver.query(
        """query ($schedule: ScheduleSelector!) {
          scheduleOrError(scheduleSelector: $schedule) { ... on Schedule { scheduleState { id } } }
        }""",
        {"schedule": REPOSITORY | {"scheduleName": "every_minute"}},
    )
    stack.webserver.query(
        "mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }",
        {"id": state["scheduleOrError"]["scheduleState"]["id"]},
    )


def stop_sensor(stack: Stack, sensor: dict[str, str]) -> None:
    """Stop the sensor again."""
    state = stack.webserver.query(
        """query ($sensor: SensorSelector!) {
          sensorOrError(sensorSelector: $sensor) { ... on Sensor { sensorState { id } } }
        }""",
        {"sensor": sensor},
    )
    stack.webserver.query(
        "mutation ($id: String!) { stopSensor(id: $id) { __typename } }",
        {"id": state["sensorOrError"]["sensorState"]["id"]},
    )
