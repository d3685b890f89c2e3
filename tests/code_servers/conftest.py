"""A fleet over a real store, its servers' connections as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.code_servers.calls import Calls
from hpc_agent.code_servers.channels import Channels
from hpc_agent.code_servers.demand import Demand
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.location_state import LocationState
from hpc_agent.config import AgentConfig, parse_config
from hpc_agent.dagster_plus.agent_calls import Deployment, WorkspaceEntry
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.store import code_servers
from hpc_agent.store.code_servers import CodeServer
from hpc_agent.store.database import Store
from tests.agent.conftest import Clock

METADATA = '{"__class__": "CodeDeploymentMetadata", "python_file": "defs.py"}'


@dataclass(slots=True)
class Tunnels:
    """A relay: no server has dialled in unless ``socket`` says where it is."""

    directory: Path
    socket: Path | None = None
    forgotten: list[str] = field(default_factory=list)

    def tunnel_socket(self, key: str) -> Path:
        return self.socket or self.directory / key

    def connected(self, key: str) -> bool:
        return self.socket is not None

    async def forget(self, key: str) -> None:
        self.forgotten.append(key)


def entry(name: str, *, version: float = 1.0, **changes: Any) -> WorkspaceEntry:
    """A code location of the workspace."""
    values = {
        "locationName": name,
        "serializedDeploymentMetadata": METADATA,
        "metadataTimestamp": version,
    }
    return WorkspaceEntry.model_validate(values | changes)


def deployment(name: str, *entries: WorkspaceEntry, is_branch: bool = False) -> Deployment:
    """A deployment of the workspace."""
    return Deployment.model_validate(
        {"deploymentName": name, "isBranchDeployment": is_branch, "workspaceEntries": []}
    ).model_copy(update={"workspace_entries": list(entries)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Harbour:
    """A fleet with its parts at hand."""

    config: AgentConfig
    store: Store
    clock: Clock
    demand: Demand
    channels: Channels
    fleet: Fleet
    calls: Calls
    tunnels: Tunnels
    rung: list[str]
    asked_for: asyncio.Event

    async def reconcile(self, *deployments: Deployment) -> list[LocationState]:
        """Let the fleet ask, and answer with those deployments that it asks for."""
        question = await self.fleet.question()
        asked = set(question.deployments)
        found = [each for each in deployments if each.deployment_name in asked]
        return await self.fleet.reconcile(question, found)

    async def servers(self) -> list[CodeServer]:
        """Return the servers that count."""
        return await self.store.run(code_servers.not_retired)

    async def serve(self, place: tuple[str, str]) -> CodeServer:
        """Let the newest server of a location be up."""
        server = (await self.fleet.servers_of(place))[-1]
        await self.fleet.mark_serving(server)
        return server


def make_harbour(
    config: AgentConfig, store: Store, clock: Clock, preparation: JobPreparation | None = None
) -> Harbour:
    """Put a fleet together as the daemon does."""
    rung: list[str] = []
    asked_for = asyncio.Event()
    demand = Demand(config.code_servers.server_ttl, clock)
    tunnels = Tunnels(config.home)
    channels = Channels(tunnels)
    fleet = Fleet(
        config=config,
        store=store,
        preparation=preparation or make_preparation(config),
        channels=channels,
        demand=demand,
        clock=clock,
        on_submit=lambda: rung.append("submit"),
        on_retire=lambda: rung.append("cancel"),
    )
    calls = Calls(
        fleet=fleet,
        channels=channels,
        demand=demand,
        on_demand=asked_for.set,
    )
    return Harbour(
        config=config,
        store=store,
        clock=clock,
        demand=demand,
        channels=channels,
        fleet=fleet,
        calls=calls,
        tunnels=tunnels,
        rung=rung,
        asked_for=asked_for,
    )


def make_preparation(config: AgentConfig) -> JobPreparation:
    """Make the work directory and what writes into it."""
    work = WorkDirectory(config.work_dir)
    work.make()
    return JobPreparation(
        work=work,
        templates=Templates(),
        tokens=JobTokens(b"secret"),
        program=build_node_program(work.lib),
        node_python="python3",
    )


def fleet_config(directory: Path, **settings: Any) -> AgentConfig:
    """An agent's configuration with these settings over the least there must be."""
    content: dict[str, Any] = {
        "control_plane": {"url": "http://127.0.0.1:1"},
        "work_dir": str(directory / "work"),
        "home": str(directory / "home"),
        "environment": {"python": "/usr/bin/python3"},
    }
    for key, value in settings.items():
        content[key] = content[key] | value if key in content else value
    return parse_config(content, source="test")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "home")
    await opened.open()
    yield opened
    await opened.close()
