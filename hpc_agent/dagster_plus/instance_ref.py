"""The instance configuration of user code: Dagster's stock storages, talking to the job's relay.

It names environment variables, not values: the node program sets them to the loopback address of
the relay and to the job's own token, so the configuration holds no secret. The shape is that of
``DagsterInstance.get_ref()`` for a stock DagsterCloudAgentInstance (dagster/_core/instance/ref.py).
"""

from __future__ import annotations

import yaml

from hpc_agent.config import ComputeLogs
from hpc_agent.dagster_plus.serdes import Packed, packed

URL_VARIABLE = "HPC_AGENT_API_URL"
TOKEN_VARIABLE = "HPC_AGENT_JOB_TOKEN"  # noqa: S105 - the variable's name, not a token
TMP_VARIABLE = "HPC_AGENT_TMP"

_STORAGES = {
    "run_storage": ("dagster_cloud.storage.runs", "GraphQLRunStorage"),
    "event_log_storage": ("dagster_cloud.storage.event_logs", "GraphQLEventLogStorage"),
    "schedule_storage": ("dagster_cloud.storage.schedules", "GraphQLScheduleStorage"),
}


# Where Dagster keeps local artifacts and captured output on the node. By the name of a variable: a
# path written in later could be taken for one inside of what users and the control plane wrote.
_LOCAL_DIRECTORY = {"env": TMP_VARIABLE}


def instance_ref(deployment: str, compute_logs: ComputeLogs) -> Packed:
    """Return the InstanceRef for user code in one deployment."""
    return packed(
        "InstanceRef",
        local_artifact_storage_data=_configurable(
            "dagster.core.storage.root", "LocalArtifactStorage", {"base_dir": _LOCAL_DIRECTORY}
        ),
        compute_logs_data=_compute_logs(compute_logs),
        scheduler_data=_configurable("dagster.core.scheduler", "DagsterDaemonScheduler"),
        run_coordinator_data=_configurable("dagster.core.run_coordinator", "DefaultRunCoordinator"),
        run_launcher_data=_configurable("dagster", "DefaultRunLauncher"),
        settings={},
        run_storage_data=_configurable(*_STORAGES["run_storage"]),
        event_storage_data=_configurable(*_STORAGES["event_log_storage"]),
        schedule_storage_data=_configurable(*_STORAGES["schedule_storage"]),
        storage_data=_configurable(
            "dagster.core.storage.legacy_storage",
            "CompositeStorage",
            {
                name: {"module_name": module, "class_name": class_name, "config_yaml": "{}\n"}
                for name, (module, class_name) in _STORAGES.items()
            },
        ),
        secrets_loader_data=_configurable("dagster_cloud.secrets", "DagsterCloudSecretsLoader"),
        defs_state_storage_data=_configurable(
            "dagster_cloud.storage.defs_state", "GraphQLDefsStateStorage"
        ),
        custom_instance_class_data=_configurable(
            "dagster_cloud.instance",
            "DagsterCloudAgentInstance",
            {
                "dagster_cloud_api": {
                    "url": {"env": URL_VARIABLE},
                    "agent_token": {"env": TOKEN_VARIABLE},
                    "deployment": deployment,
                    # Enough to outlast an agent that is away for minutes: it costs nothing else.
                    "retries": 30,
                    "timeout": 120,
                },
                # Required by the class, never started in user code.
                "user_code_launcher": {
                    "module": "dagster_cloud.workspace.user_code_launcher",
                    "class": "ProcessUserCodeLauncher",
                },
            },
        ),
    )


def _compute_logs(compute_logs: ComputeLogs) -> Packed:
    if not compute_logs.enabled:
        return _configurable(
            "dagster.core.storage.noop_compute_log_manager", "NoOpComputeLogManager"
        )
    return _configurable(
        "dagster_cloud.storage.compute_logs",
        "CloudComputeLogManager",
        {
            "local_dir": _LOCAL_DIRECTORY,
            "upload_interval": compute_logs.upload_interval_seconds,
        },
    )


def _configurable(module: str, class_name: str, config: dict[str, object] | None = None) -> Packed:
    return packed(
        "ConfigurableClassData",
        module_name=module,
        class_name=class_name,
        config_yaml=yaml.safe_dump(config or {}),
    )
