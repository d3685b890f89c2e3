"""From a code location's deploy data to a code server's job."""

from __future__ import annotations

import json
from typing import Any

from hpc_agent.code_servers.server_plan import plan_server
from hpc_agent.config import parse_config

CONFIG = parse_config(
    {
        "control_plane": {"url": "https://x"},
        "work_dir": "/work",
        "environment": {"python": "/py"},
    },
    source="test",
)


def environment_of(**deploy_data: Any) -> dict[str, str]:
    """Return the environment of the code server of a location."""
    plan = plan_server(
        CONFIG, key="srv-1", deployment="prod", location="here", deploy_data=json.dumps(deploy_data)
    )
    return dict(plan.spec.environment)


def test_user_code_is_told_where_it_runs() -> None:
    """What the control plane says of the deployment is in the environment."""
    environment = environment_of(
        module_name="defs", cloud_context_env={"DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT": 0}
    )
    assert environment["DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT"] == "0"
    assert environment["DAGSTER_CLI_API_GRPC_MODULE_NAME"] == "defs"
    assert environment["DAGSTER_LOCATION_NAME"] == "here"
