"""The relay that a probe job is to reach: that of the running agent, else one like it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_agent.agent.relay import relay_settings
from hpc_agent.agent.relay_port import RelayPortLoop
from hpc_agent.cluster.cluster import Cluster
from hpc_agent.config import AgentConfig
from hpc_agent.errors import HpcAgentError
from hpc_agent.files import Files
from hpc_agent.jobs.directory import RELAY_FILE, WorkDirectory
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.outgoing.http_client import http_client
from hpc_agent.outgoing.storage_addresses import StorageAddresses
from hpc_agent.relay.identity import JobIdentity, JobReport, ReportAnswer
from hpc_agent.relay.server import Relay
from hpc_agent.relay.upstream import Upstream
from hpc_agent.slurm.ssh_shared import SharedConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What ``relay.json`` tells jobs."""

    addresses: list[str]
    certificate: str


@asynccontextmanager
async def reachable_relay(
    config: AgentConfig, cluster: Cluster, directory: Path, *, agent_runs: bool
) -> AsyncIterator[Announced]:
    """Yield the running agent's relay, or one of our own as the agent would start it."""
    if agent_runs:
        yield await asyncio.to_thread(_announced, cluster.files, config.work_dir)
        return
    work = WorkDirectory(directory, cluster.files)
    with tempfile.TemporaryDirectory(prefix="hpc-agent-doctor-") as state:
        settings = replace(
            relay_settings(config, is_forwarded=cluster.login_node is not None),
            state_dir=Path(state),
        )
        if settings.work_dir is not None:
            port = settings.port or _last_port(config)
            settings = replace(settings, work_dir=directory, port=port)
        async with http_client(connections=1, kept=0) as client:
            nowhere = StorageAddresses(config.control_plane.url, [])
            upstream = Upstream(
                api=client, storage=client, addresses=nowhere, credentials=_no_credentials
            )
            async with (
                Relay(
                    settings, directory=_Nobody(), upstream=upstream, on_report=_no_report
                ) as relay,
                _told(config, relay, cluster.login_node, work, Path(state)),
            ):
                yield await asyncio.to_thread(_announced, cluster.files, directory)


@asynccontextmanager
async def _told(
    config: AgentConfig,
    relay: Relay,
    login_node: SharedConnection | None,
    work: WorkDirectory,
    state: Path,
) -> AsyncIterator[None]:
    """Open the relay's port on the login node, where it has one."""
    if login_node is None:
        yield
        return
    program = await asyncio.to_thread(build_node_program, work.lib, work.files)
    port = RelayPortLoop(
        config, relay, login_node=login_node, work=work, program=program, state_dir=state
    )
    try:
        await port.step()
        yield
    finally:
        await port.close()


class _Nobody:
    """A relay's directory without jobs: whoever comes is asked for a token."""

    async def identify(self, token: str) -> JobIdentity | None:
        """Know no token."""
        return None

    async def location_of_run(self, run_id: str) -> str | None:
        """Know no run."""
        return None

    async def state_owner(self, identity: JobIdentity, key: str) -> str:
        """Nobody asks."""
        raise NotImplementedError


async def _no_report(identity: JobIdentity, report: JobReport) -> ReportAnswer:
    return ReportAnswer(proceed=False)


def _no_credentials(deployment: str) -> Mapping[str, str]:
    return {}


def _announced(files: Files, directory: Path) -> Announced:
    path = directory / RELAY_FILE
    try:
        content = json.loads(files.read(path))
        return Announced(addresses=content["addresses"], certificate=content["certificate"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HpcAgentError(f"{path} is not what an agent writes: {error!r}") from error


def _last_port(config: AgentConfig) -> int:
    """Return the port that the agent will take again, since a firewall may know it."""
    try:
        return int((config.home / "relay-port").read_text())
    except (OSError, ValueError):
        return 0
