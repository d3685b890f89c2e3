"""A gateway over a real Dagster instance, on real sockets, inside the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from dagster import DagsterInstance

from hpc_agent.control_plane.gateway import Gateway, bind, open_gateway, serve_agents
from hpc_agent.control_plane.home import Home, prepare_home
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.tokens import TokenKind
from hpc_agent.control_plane.tls import generated_certificate


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose databases exist: Dagster takes seconds to make them."""
    fresh = Home(tmp_path_factory.mktemp("template") / "home")
    prepare_home(fresh)
    Database(fresh.database_url).close()
    with DagsterInstance.from_config(str(fresh.root)) as instance:
        instance.get_runs_count()
        instance.event_log_storage.get_maximum_record_id()
        instance.all_instigator_state()
    return fresh.root


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Home:
    """A fresh home directory."""
    return Home(Path(shutil.copytree(template, tmp_path / "home")))


@pytest.fixture
def database(home: Home) -> Database:
    """The gateway database of that home."""
    return Database(home.database_url)


@pytest_asyncio.fixture
async def gateway(home: Home) -> AsyncIterator[Gateway]:
    """A gateway with its faces, but without the agent API."""

    async def changed(_added: set[str]) -> None:
        return

    async with open_gateway(home, changed) as opened:
        yield opened


@dataclass(frozen=True)
class AgentApi:
    """The agent API as an agent reaches it: over TLS, with a token."""

    url: str
    client: httpx.AsyncClient
    token: str
    token_id: str
    trust: ssl.SSLContext


@pytest_asyncio.fixture
async def api(gateway: Gateway, home: Home) -> AsyncIterator[AgentApi]:
    """The agent API of that gateway, listening."""
    tls = generated_certificate(home.tls, "127.0.0.1")
    token, secret = gateway.services.tokens.create("test", TokenKind.AGENT)
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.create_task(serve_agents(gateway.services, listener, tls))
        trust = ssl.create_default_context(cafile=str(tls.ca))
        headers = {"Dagster-Cloud-Api-Token": secret, "Dagster-Cloud-Deployment": "prod"}
        async with httpx.AsyncClient(
            base_url=url, verify=trust, headers=headers, timeout=30, trust_env=False
        ) as client:
            yield AgentApi(url, client, secret, token.token_id, trust)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
