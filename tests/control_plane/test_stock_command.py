"""The stock ``dagster-cloud`` command deploys to our control plane."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.store.tokens import TokenKind
from tests.control_plane.conftest import AgentApi


async def command(
    api: AgentApi, home: Home, secret: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run ``dagster-cloud`` against the gateway, outside its event loop."""
    options = ["--url", api.url, "--api-token", secret, "--deployment", "prod"]
    argv = [str(Path(sys.executable).parent / "dagster-cloud"), *arguments, *options]
    environment = {**os.environ, "REQUESTS_CA_BUNDLE": str(home.tls / "ca.pem")}
    return await asyncio.to_thread(
        subprocess.run, argv, env=environment, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip


@pytest.mark.timeout(180)
async def test_locations_are_synced_and_deleted(
    api: AgentApi, gateway: Gateway, home: Home, tmp_path: Path
) -> None:
    """``workspace sync`` makes the deployment what the file says; ``delete-location`` removes."""
    _, secret = gateway.services.tokens.create("ci", TokenKind.USER)
    file = tmp_path / "dagster_cloud.yaml"
    file.write_text("locations: [{location_name: a, code_source: {module_name: a}}]")

    synced = await command(
        api, home, secret, "workspace", "sync", "--workspace", str(file),
        "--location-load-timeout", "0", "--agent-heartbeat-timeout", "0",
    )  # fmt: skip
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert [location.name for location in gateway.services.locations.all()] == ["a"]

    deleted = await command(api, home, secret, "workspace", "delete-location", "a")

    assert deleted.returncode == 0, deleted.stdout + deleted.stderr
    assert gateway.services.locations.all() == []


@pytest.mark.timeout(180)
async def test_agent_token_may_not_deploy(api: AgentApi, gateway: Gateway, home: Home) -> None:
    """What runs on the cluster cannot change what runs on the cluster."""
    result = await command(
        api, home, api.token, "workspace", "add-location", "a", "--module-name", "a"
    )

    assert result.returncode != 0
    assert "needs a user token" in result.stdout + result.stderr
    assert gateway.services.locations.all() == []
