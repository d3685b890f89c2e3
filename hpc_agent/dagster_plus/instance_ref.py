"""The instance configuration of user code: Dagster's stock storages, talking to the job's relay.

It names environment variables, not values: the node program sets them to the loopback address of
the relay and to the job's own token, so the configuration holds no secret. The shape is that of
``DagsterInstance.get_ref()`` for a stock DagsterCloudAgentInstance (dagster/_core/instance/ref.py).
"""

from __future__ import annotations

import yaml

from hpc_agent.config import ComputeLogs, PythonLogs
from hpc_agent.dagster_plus.serdes import Packed, packed

URL_VARIABLE = "HPC_AGENT_API_URL"
TOKEN_VARIABLE = "HPC_AGENT_JOB_TOKEN"  # noqa: S105 - the variable's name, not a token
LOGS_VARIABLE = "HPC_AGENT_COMPUTE_LOGS"
ARTIFACTS_VARIABLE = "HPC_AGENT_ARTIFACTS"

_Class = tuple[str, str, dict[str, object]]

_INSTANCE = ("dagster_cloud.instance", "DagsterCloudAgentInstance")
_ARTIFACTS: _Class = (
    "dagster.core.storage.root",
    "LocalArtifactStorage",
    {"base_dir": {"env": ARTIFACTS_VARIABLE}},
)
_STORAGES = {
    "run_storage": ("dagster_cloud.storage.runs", "GraphQLRunStorage"),
    "event_log_storage": ("dagster_cloud.storage.event_logs", "GraphQLEventLogStorage"),
    "schedule_storage": ("dagster_cloud.storage.schedules", "GraphQLScheduleStorage"),
}


# The node program says with each "not now" when to come again (Retry-After, 5 to 30 s), so that 30
# times are minutes. Without that word the stock client doubles its pauses without bound (0.5 s
# times 2 to the 30th are 17 years; _retry_loop in dagster_cloud_cli/core/graphql_client.py), so it
# does not pause at all then: only a node program that has died says nothing, and the child dies
# with it.
_PATIENCE = {"retries": 30, "backoff_factor": 0.0, "timeout": 120}


def instance_ref(deployment: str, compute_logs: ComputeLogs, python_logs: PythonLogs) -> Packed:
    """Return the InstanceRef for user code in one deployment."""
    return packed(
        "InstanceRef",
        local_artifact_storage_data=_configurable(*_ARTIFACTS),
        compute_logs_data=_configurable(*_captured(compute_logs)),
        scheduler_data=_configurable("dagster.core.scheduler", "DagsterDaemonScheduler"),
        run_coordinator_data=_configurable("dagster.core.run_coordinator", "DefaultRunCoordinator"),
        run_launcher_data=_configurable("dagster", "DefaultRunLauncher"),
        settings={"python_logs": python_logs.settings} if python_logs.settings else {},
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
            *_INSTANCE,
            _instance_settings(deployment),
        ),
    )


def dagster_yaml(deployment: str, compute_logs: ComputeLogs, python_logs: PythonLogs) -> str:
    """Return the same as a DAGSTER_HOME has it, for user code that gets the instance by itself.

    The storages are the class's own (``config_defaults`` in dagster_cloud/instance).
    """
    settings: dict[str, object] = {
        "instance_class": _named(*_INSTANCE),
        **_instance_settings(deployment),
        "local_artifact_storage": _named(*_ARTIFACTS),
        "compute_logs": _named(*_captured(compute_logs)),
        "telemetry": {"enabled": False},
    }
    if python_logs.settings:
        settings["python_logs"] = python_logs.settings
    return yaml.safe_dump(settings)


def _instance_settings(deployment: str) -> dict[str, object]:
    return {
        "dagster_cloud_api": {
            "url": {"env": URL_VARIABLE},
            "agent_token": {"env": TOKEN_VARIABLE},
            "deployment": deployment,
            **_PATIENCE,
            # Whatever user code makes of the proxy variables (requests/sessions.py,
            # merge_environment_settings: this word wins over them).
            "proxies": {"no_proxy": "127.0.0.1"},
        },
        # Required by the class, never started in user code.
        "user_code_launcher": {
            "module": "dagster_cloud.workspace.user_code_launcher",
            "class": "ProcessUserCodeLauncher",
        },
    }


def _captured(compute_logs: ComputeLogs) -> _Class:
    """Dagster captures into files of the node; it is the node program that uploads them.

    The stock manager uploads from the process that captures: what dies has uploaded nothing, and
    of what is larger than 50 MiB it cuts off the end without a word.
    """
    if not compute_logs.enabled:
        return "dagster.core.storage.noop_compute_log_manager", "NoOpComputeLogManager", {}
    return (
        "dagster.core.storage.local_compute_log_manager",
        "LocalComputeLogManager",
        {"base_dir": {"env": LOGS_VARIABLE}},
    )


def _named(module: str, class_name: str, config: dict[str, object] | None = None) -> object:
    return {"module": module, "class": class_name, **({"config": config} if config else {})}


def _configurable(module: str, class_name: str, config: dict[str, object] | None = None) -> Packed:
    return packed(
        "ConfigurableClassData",
        module_name=module,
        class_name=class_name,
        config_yaml=yaml.safe_dump(config or {}),
    )
