"""Telling webserver and daemon which locations there are: workspace.yaml and a reload."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import httpx
import yaml

from hpc_agent.control_plane.home import WORKSPACE_HEADER
from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.webserver_socket import async_client, told_of
from hpc_agent.private_files import write_private

RELOAD_TIMEOUT_SECONDS = 60.0
RELOAD = """
mutation ReloadWorkspaceOfGateway {
  reloadWorkspace { __typename ... on PythonError { message } }
}
"""

logger = logging.getLogger(__name__)


def write_workspace(path: Path, sockets: Mapping[str, Path]) -> bool:
    """Write workspace.yaml and tell whether it has changed."""
    servers = [
        {"grpc_server": {"socket": str(socket), "location_name": name}}
        for name, socket in sockets.items()
    ]
    content = (WORKSPACE_HEADER + yaml.safe_dump({"load_from": servers})).encode()
    if path.exists() and path.read_bytes() == content:
        return False
    write_private(path, content, durable=True)
    return True


async def reload_webserver(socket: Path) -> bool:
    """Make the webserver read workspace.yaml again, and tell whether it did."""
    try:
        async with async_client(socket, RELOAD_TIMEOUT_SECONDS) as client:
            response = await client.post(
                "/graphql", json={"query": RELOAD}, headers=told_of(Role.ADMIN)
            )
            response.raise_for_status()
            result = response.json()
    except (httpx.HTTPError, ValueError) as error:
        logger.warning("the webserver did not reload its workspace: %s", error)
        return False
    answer = (result.get("data") or {}).get("reloadWorkspace") or {}
    if answer.get("__typename") != "Workspace":
        logger.warning("the webserver did not reload its workspace: %s", result)
        return False
    return True
