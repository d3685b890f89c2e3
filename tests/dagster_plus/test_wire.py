"""What the agent builds by hand is what the stock types serialize to."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster._core.events import EngineEventData, JobCanceledData, JobFailureData
    from dagster._core.instance.ref import InstanceRef
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._serdes import ConfigurableClassData
    from dagster_cloud.api.dagster_cloud_api import (
        AgentHeartbeat,
        DagsterCloudUploadApiResponse,
        TimestampedError,
    )
    from dagster_shared.serdes import deserialize_value, serialize_value

from hpc_agent.agent.context import RecentErrors
from hpc_agent.config import ComputeLogs, PythonLogs
from hpc_agent.dagster_plus import events, requests, responses
from hpc_agent.dagster_plus.instance_ref import dagster_yaml, instance_ref
from hpc_agent.dagster_plus.responses import Timing
from hpc_agent.dagster_plus.serdes import dumps, error_info, error_info_of, is_error, packed
from hpc_agent.runs.worker_statuses import worker_statuses

pytestmark = pytest.mark.filterwarnings("ignore")

TIMING = Timing(received_at=1.0, started_at=2.0, finished_at=3.0)


def as_stock_writes_it(serialized: str, stock_type: Any) -> Any:
    """Read JSON of ours with a stock type, and return what that type itself would write."""
    return json.loads(serialize_value(deserialize_value(serialized, stock_type)))


@pytest.mark.parametrize(
    "response",
    [
        responses.success(),
        responses.grpc_answer('{"__class__": "X"}'),
        responses.failure("no"),
        responses.unknown("MAKE_COFFEE"),
    ],
    ids=["success", "grpc", "failure", "unknown"],
)
def test_answers(response: dict[str, Any]) -> None:
    """Every kind of answer is the stock one."""
    ours = responses.upload("id", "PING_LOCATION", response, TIMING)
    assert as_stock_writes_it(dumps(ours), DagsterCloudUploadApiResponse) == ours


def test_heartbeat() -> None:
    """A heartbeat with everything in it."""
    errors = RecentErrors()
    errors.add(1.0, "broken")
    assert len(errors.packed(1.0)) == 1
    for error in errors.packed(1.0):
        assert as_stock_writes_it(dumps(error), TimestampedError) == error
    ours = packed(
        "AgentHeartbeat",
        timestamp=1.0,
        agent_id="id",
        agent_label=None,
        agent_type="HpcAgent",
        errors=None,
        metadata={"version": "0.1"},
        run_worker_statuses=worker_statuses([]),
        code_server_heartbeats=[
            packed(
                "CloudCodeServerHeartbeat",
                location_name="here",
                server_status={"__enum__": "CloudCodeServerStatus.STARTING"},
                error=error_info("waits"),
                metadata={"message": "waits"},
            )
        ],
        agent_queues_config=packed(
            "AgentQueuesConfig", include_default_queue=True, additional_queues=None
        ),
    )
    assert as_stock_writes_it(dumps(ours), AgentHeartbeat) == ours


@pytest.mark.parametrize(
    ("event", "stock_type"),
    [
        (
            events.engine_event(
                "r", "j", "hello", at=1.0, metadata={"a": "x", "b": 1, "c": 1.5}, error="oh"
            ),
            EngineEventData,
        ),
        (events.run_failure("r", "j", "failed", at=1.0), JobFailureData),
        (events.run_canceled("r", "j", "canceled", at=1.0), JobCanceledData),
    ],
    ids=["engine", "failure", "canceled"],
)
def test_event_data(event: dict[str, Any], stock_type: Any) -> None:
    """The data of each event that the agent writes is the stock one."""
    ours = event["dagsterEvent"]["eventSpecificData"]
    assert as_stock_writes_it(ours, stock_type) == json.loads(ours)


def test_canceling_event_carries_no_data() -> None:
    """As ``report_run_canceling`` writes it."""
    event = events.run_canceling("r", "j", at=1.0)["dagsterEvent"]
    assert event["eventSpecificData"] is None
    assert event["message"] == "Sending run termination request."


@pytest.mark.parametrize("compute_logs", [ComputeLogs(), ComputeLogs(enabled=False)])
def test_instance_ref_names_loadable_classes(
    compute_logs: ComputeLogs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User code can make its instance from the reference; what it names exists."""
    monkeypatch.setenv("HPC_AGENT_COMPUTE_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("HPC_AGENT_ARTIFACTS", str(tmp_path / "artifacts"))
    python_logs = PythonLogs(managed_python_loggers=["mine"], python_log_level="INFO")
    packed_reference = instance_ref("prod", compute_logs, python_logs)
    reference = deserialize_value(dumps(packed_reference), InstanceRef)
    assert reference.local_artifact_storage.base_dir == str(tmp_path / "artifacts")
    assert reference.settings["python_logs"] == {
        "managed_python_loggers": ["mine"],
        "python_log_level": "INFO",
    }
    for data in (
        reference.compute_logs_data,
        reference.run_storage_data,
        reference.event_storage_data,
        reference.schedule_storage_data,
        reference.secrets_loader_data,
        reference.defs_state_storage_data,
    ):
        assert data is not None
        assert data.rehydrate(as_type=None) is not None


@pytest.mark.parametrize("compute_logs", [ComputeLogs(), ComputeLogs(enabled=False)])
def test_dagster_home_says_the_same_as_the_reference(
    compute_logs: ComputeLogs, tmp_path: Path
) -> None:
    """``DagsterInstance.get()`` of user code finds the instance that its run has."""
    chosen = "prod", compute_logs, PythonLogs(python_log_level="INFO")
    (tmp_path / "dagster.yaml").write_text(dagster_yaml(*chosen))
    found = InstanceRef.from_dir(str(tmp_path))
    given = deserialize_value(dumps(instance_ref(*chosen)), InstanceRef)
    for name in (
        "local_artifact_storage_data",
        "compute_logs_data",
        "storage_data",
        "custom_instance_class_data",
        "secrets_loader_data",
        "defs_state_storage_data",
    ):
        assert meaning(getattr(found, name)) == meaning(getattr(given, name)), name
    assert found.settings["python_logs"] == given.settings["python_logs"]


def meaning(data: ConfigurableClassData) -> tuple[type, object]:
    """Return a class and its configuration, by whatever name of its module."""
    module = importlib.import_module(data.module_name)
    return getattr(module, data.class_name), yaml.safe_load(data.config_yaml)


def test_run_arguments_read_back() -> None:
    """``dagster api execute_run`` takes the arguments that the agent makes."""
    ours = packed(
        "ExecuteRunArgs",
        pipeline_origin=json.loads(ORIGIN),
        pipeline_run_id="r",
        instance_ref=instance_ref("prod", ComputeLogs(), PythonLogs()),
        set_exit_code_on_failure=True,
    )
    args = deserialize_value(dumps(ours), ExecuteRunArgs)
    assert args.run_id == "r"
    assert args.job_origin.job_name == "j"


ORIGIN = """{"__class__": "PipelinePythonOrigin", "pipeline_name": "j", "repository_origin":
{"__class__": "RepositoryPythonOrigin", "code_pointer": {"__class__": "FileCodePointer",
"fn_name": "defs", "python_file": "f.py", "working_directory": "/wd"}, "container_context": null,
"container_image": null, "entry_point": ["dagster"], "executable_path": "/py"}}"""


@pytest.mark.parametrize(
    ("args", "location"),
    [
        ({"location_name": "a"}, "a"),
        (
            {
                "repository_origin": {
                    "repository_location_origin": {"location_name": "b"},
                    "repository_name": "r",
                }
            },
            "b",
        ),
        (
            {
                "pipeline_origin": {
                    "external_repository_origin": {
                        "repository_location_origin": {"location_name": "c"}
                    }
                }
            },
            "c",
        ),
        ({"code_location_origin": {"location_name": "d"}}, "d"),
        ({"repository_location_origin": {"location_name": "e"}}, "e"),
        ({}, None),
    ],
)
def test_location_of_a_request(args: dict[str, Any], location: str | None) -> None:
    """Each kind of request names its location in a place of its own."""
    assert requests.location_of(args) == location


def test_error_is_told_from_an_answer() -> None:
    """An answer that contains the word is still an answer."""
    assert is_error(dumps(error_info_of(ValueError("no"))))
    assert is_error(json.dumps(error_info("x")))
    assert not is_error(json.dumps(packed("ListRepositoriesResponse", x="SerializableErrorInfo")))
