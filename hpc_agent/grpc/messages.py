"""The messages of Dagster's ``api.DagsterApi``, in a descriptor pool of our own.

Made from the table below instead of generated code: dagster registers ``dagster_api.proto`` in the
process-wide pool, and a second registration there is refused (docs/adr/0003). Field numbers are
those of dagster/_grpc/protos/dagster_api.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "api"

_String = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_Bytes = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
_Bool = descriptor_pb2.FieldDescriptorProto.TYPE_BOOL
_Int32 = descriptor_pb2.FieldDescriptorProto.TYPE_INT32
_Strings = -_String  # repeated

_Fields = Mapping[str, tuple[int, int]]
_MESSAGES: Mapping[str, _Fields] = {
    "Empty": {},
    "PingRequest": {"echo": (1, _String)},
    "PingReply": {"echo": (1, _String), "serialized_server_utilization_metrics": (2, _String)},
    "GetServerIdReply": {"server_id": (1, _String)},
    "ListRepositoriesRequest": {},
    "ListRepositoriesReply": {"serialized_list_repositories_response_or_error": (1, _String)},
    "ExternalRepositoryRequest": {
        "serialized_repository_python_origin": (1, _String),
        "defer_snapshots": (2, _Bool),
    },
    "StreamingExternalRepositoryEvent": {
        "sequence_number": (1, _Int32),
        "serialized_external_repository_chunk": (2, _String),
    },
    "ExternalJobRequest": {
        "serialized_repository_origin": (1, _String),
        "job_name": (2, _String),
    },
    "ExternalJobReply": {"serialized_job_data": (1, _String), "serialized_error": (2, _String)},
    "ExecutionPlanSnapshotRequest": {"serialized_execution_plan_snapshot_args": (1, _String)},
    "ExecutionPlanSnapshotReply": {"serialized_execution_plan_snapshot": (1, _String)},
    "ExternalPipelineSubsetSnapshotRequest": {
        "serialized_pipeline_subset_snapshot_args": (1, _String)
    },
    "ExternalPipelineSubsetSnapshotReply": {
        "serialized_external_pipeline_subset_result": (1, _String)
    },
    "ExternalPartitionNamesRequest": {"serialized_partition_names_args": (1, _String)},
    "ExternalPartitionNamesReply": {
        "serialized_external_partition_names_or_external_partition_execution_error": (1, _String)
    },
    "ExternalPartitionConfigRequest": {"serialized_partition_args": (1, _String)},
    "ExternalPartitionConfigReply": {
        "serialized_external_partition_config_or_external_partition_execution_error": (1, _String)
    },
    "ExternalPartitionTagsRequest": {"serialized_partition_args": (1, _String)},
    "ExternalPartitionTagsReply": {
        "serialized_external_partition_tags_or_external_partition_execution_error": (1, _String)
    },
    "ExternalPartitionSetExecutionParamsRequest": {
        "serialized_partition_set_execution_param_args": (1, _String)
    },
    "ExternalScheduleExecutionRequest": {
        "serialized_external_schedule_execution_args": (1, _String)
    },
    "ExternalScheduleExecutionReply": {"serialized_schedule_result": (1, _String)},
    "ExternalSensorExecutionRequest": {"serialized_external_sensor_execution_args": (1, _String)},
    "ExternalSensorExecutionReply": {"serialized_sensor_result": (1, _String)},
    "StreamingChunkEvent": {"sequence_number": (1, _Int32), "serialized_chunk": (2, _String)},
    "ExternalNotebookDataRequest": {"notebook_path": (1, _String)},
    "ExternalNotebookDataReply": {"content": (1, _Bytes)},
    "RefreshComponentStateRequest": {"defs_state_keys": (1, _Strings)},
    "RefreshComponentStateReply": {
        "serialized_error": (1, _String),
        "serialized_defs_state_info": (2, _String),
    },
}


def _build() -> Mapping[str, Any]:
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="hpc_agent/dagster_api.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = field_type.LABEL_REPEATED if kind < 0 else field_type.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=abs(kind), label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _build()


def message_class(name: str) -> Any:
    """Return a message class by its name in dagster_api.proto."""
    return _CLASSES[name]
