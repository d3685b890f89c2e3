"""schemathesis against the REST surface: requests made of its description, and none is a 5xx."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.routing import Route

from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.http.app import make_app
from tests.control_plane.conftest import AgentApi

DESCRIPTION = Path(__file__).parent / "agent_api.openapi.yaml"
EXAMPLES = 15  # of each operation and kind


def described() -> dict[str, Any]:
    paths: dict[str, Any] = yaml.safe_load(DESCRIPTION.read_text())["paths"]
    return paths


async def test_description_has_every_route(gateway: Gateway) -> None:
    """A new one is fuzzed as soon as it is served."""
    served = {
        (route.path, method.lower())
        for route in make_app(gateway.services).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == {(path, method) for path, methods in described().items() for method in methods}


@pytest.mark.timeout(240)
async def test_no_request_is_a_fault_of_ours(api: AgentApi, tmp_path: Path) -> None:
    """Positive and negative ones, with an agent's token; unknown methods and types among them."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", str(DESCRIPTION), "--url", api.url,
        "--header", f"Dagster-Cloud-Api-Token: {api.token}", "--tls-verify", "false",
        "--checks", "not_a_server_error", "--mode", "all", "--phases", "examples,coverage,fuzzing",
        "--max-examples", str(EXAMPLES), "--workers", "1", "--seed", "1", "--no-color",
        "--generation-database", "none", "--suppress-health-check", "all",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,  # it keeps notes where it runs
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()[-4000:]
    made = re.search(rb"(\d+) generated, \1 passed", said)
    assert made is not None, said.decode()[-4000:]
    assert int(made[1]) > 10 * EXAMPLES
