"""A gateway over a real Dagster instance, on real sockets, inside the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from dagster import DagsterInstance

from hpc_agent.control_plane.database_url import storage_yaml
from hpc_agent.control_plane.gateway import Gateway, open_gateway, serve_agents
from hpc_agent.control_plane.home import Home, prepare_home
from hpc_agent.control_plane.server import bind
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.tokens import TokenKind
from hpc_agent.control_plane.tls import generated_certificate
from tests.postgres import PostgresServer, postgres

__all__ = ["postgres"]

SQLITE, POSTGRESQL = "sqlite", "postgresql"
on_both_databases = pytest.mark.parametrize("storage", [SQLITE, POSTGRESQL], indirect=True)
"""For modules whose tests shall hold whatever the tables are in."""


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> str:
    """Which database the home uses."""
    return str(getattr(request, "param", SQLITE))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose databases exist: Dagster takes seconds to make them."""
    fresh = Home(tmp_path_factory.mktemp("template") / "home")
    prepare_home(fresh)
    make_tables(fresh)
    return fresh.root


@pytest.fixture(scope="session")
def postgres_template(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The same in PostgreSQL: the URL of a database to copy."""
    url = postgres.create_database()
    fresh = Home(tmp_path_factory.mktemp("template") / "home", url)
    prepare_home(fresh, storage=storage_yaml(url, {}))
    make_tables(fresh)
    yield url
    postgres.drop_database(url)


def make_tables(home: Home) -> None:
    Database(home.database_url).close()
    with DagsterInstance.from_config(str(home.root)) as instance:
        instance.get_runs_count()
        instance.event_log_storage.get_maximum_record_id()
        instance.all_instigator_state()


@pytest.fixture
def shared_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A PostgreSQL database with all tables, for one or more homes."""
    url = postgres.create_database(postgres_template)
    yield url
    postgres.drop_database(url)


def postgres_home(root: Path, url: str) -> Home:
    """Make a home whose runs, events and requests are in PostgreSQL."""
    home = Home(root, url)
    prepare_home(home, storage=storage_yaml(url, {}))
    return home


@pytest.fixture
def home(storage: str, request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A fresh home directory."""
    if storage == POSTGRESQL:
        return postgres_home(tmp_path / "home", request.getfixturevalue("shared_url"))
    template: Path = request.getfixturevalue("template")
    return Home(Path(shutil.copytree(template, tmp_path / "home")))


@pytest.fixture
def database(home: Home) -> Iterator[Database]:
    """The gateway database of that home."""
    with contextlib.closing(Database(home.database_url)) as opened:
        yield opened


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
    async with listening(gateway, home) as opened:
        yield opened


@contextlib.asynccontextmanager
async def listening(gateway: Gateway, home: Home) -> AsyncIterator[AgentApi]:
    """Serve a gateway's agent API on a free port."""
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
