"""A fleet over a real store, its servers' connections as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.agent.bells import Bells
from hpc_agent.agent.loop import Bell
from hpc_agent.code_servers.calls import Calls
from hpc_agent.code_servers.channels import Channels
from hpc_agent.code_servers.demand import Demand
from hpc_agent.code_servers.fleet import Fleet
from hpc_agent.code_servers.life import ServerLife
from hpc_agent.code_servers.location_state import LocationState
from hpc_agent.code_servers.restarts import Restarts
from hpc_agent.code_servers.starting import Starting
from hpc_agent.config import AgentConfig, parse_config
from hpc_agent.dagster_plus.agent_calls import Deployment, WorkspaceEntry
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.slurm.state import JobState
from hpc_agent.store import code_servers
from hpc_agent.store.code_servers import CodeServer
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.workers.change import Change
from hpc_agent.workers.changes import Changes, Signature
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
    changes: Changes
    life: ServerLife
    fleet: Fleet
    calls: Calls
    tunnels: Tunnels
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
        await self.life.mark_serving(server)
        return server

    async def let_run(
        self,
        key: str,
        *,
        started_at: float,
        job_id: str = "17",
        deadline_at: float | None = None,
        state: JobState = JobState.RUNNING,
    ) -> None:
        """Let Slurm say that a worker has a job which has started."""
        change = Change(
            phase=Phase.RUNNING,
            worker={"started_at": started_at},
            job_id=job_id,
            job={
                "state": state,
                "nodes": "c1",
                "started_at": started_at,
                "deadline_at": deadline_at,
            },
            is_current=True,
        )
        await self.changes.apply(key, lambda *_: change, source="squeue")


async def rings(bell: Bell) -> bool:
    """Whether a bell has been rung since somebody has last waited for it."""
    started = asyncio.get_running_loop().time()
    await bell.wait(0.2)
    return asyncio.get_running_loop().time() - started < 0.1


def make_harbour(
    config: AgentConfig, store: Store, clock: Clock, preparation: JobPreparation | None = None
) -> Harbour:
    """Put a fleet together as the daemon does."""
    asked_for = asyncio.Event()
    demand = Demand(config.code_servers.server_ttl, clock)
    tunnels = Tunnels(config.home)
    channels = Channels(tunnels)
    changes = Changes(
        store,
        Signature(scheduler="slurm", agent_id="agent", agent_label=None),
        clock=clock,
        wall=clock,
    )
    restarts = Restarts(clock)
    life = ServerLife(
        store=store,
        changes=changes,
        channels=channels,
        demand=demand,
        restarts=restarts,
        clock=clock,
    )
    starting = Starting(
        config=config,
        store=store,
        preparation=preparation or make_preparation(config),
        changes=changes,
        clock=clock,
    )
    fleet = Fleet(
        config=config,
        store=store,
        starting=starting,
        life=life,
        restarts=restarts,
        demand=demand,
        clock=clock,
    )
    calls = Calls(
        fleet=fleet,
        life=life,
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
        changes=changes,
        life=life,
        fleet=fleet,
        calls=calls,
        tunnels=tunnels,
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
def bells() -> Bells:
    return Bells()


@pytest.fixture
async def store(tmp_path: Path, bells: Bells) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "home", on_news=bells.ring_for)
    await opened.open()
    yield opened
    await opened.close()
