"""What the daemon and a user wait for: a tick of a sensor, and a question of the web UI."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

from hpc_agent.errors import HpcAgentError
from tests.bench.peers.rows import Row, row_of
from tests.bench.peers.runners.runner import LOCATION, Place, Served

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
    from dagster._grpc.client import DagsterGrpcClient
    from dagster._grpc.types import SensorExecutionArgs

PART = "round trip"
_PLAN = """
query ($job: PipelineSelector!) {
  executionPlanOrError(pipeline: $job, mode: "default") { __typename }
}
"""
_JOB = {
    "repositoryLocationName": LOCATION,
    "repositoryName": "__repository__",
    "pipelineName": "no_op",
}


def round_trips(runner: Served, place: Place) -> list[Row]:
    """Ask one after the other, by the way that webserver and daemon go."""
    client = DagsterGrpcClient(socket=str(runner.code_server))
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), "__repository__")
    tick = SensorExecutionArgs(
        repository_origin=repository, instance_ref=None, sensor_name="idle_sensor", timeout=60
    )

    def ask_tick() -> None:
        client.external_sensor_execution(tick)

    def ask_plan() -> None:
        found = runner.webserver.query(_PLAN, {"job": _JOB})["executionPlanOrError"]
        if found["__typename"] != "ExecutionPlan":
            raise HpcAgentError(f"{runner.name}: no execution plan but {found}")

    calls = place.extent.calls
    return [
        row_of(PART, "sensor tick", runner.name, "ms", _times(ask_tick, calls)),
        row_of(PART, "UI query of user code", runner.name, "ms", _times(ask_plan, calls)),
    ]


def _times(ask: Callable[[], None], count: int) -> list[float]:
    """Return the milliseconds of each call, after one that opens connections."""
    ask()
    found = []
    for _ in range(count):
        began = time.perf_counter()
        ask()
        found.append((time.perf_counter() - began) * 1000)
    return found
