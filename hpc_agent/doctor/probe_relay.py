"""The relay that a probe job is to reach: that of the running agent, else one like it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from hpc_agent.config import AgentConfig
from hpc_agent.jobs.directory import RELAY_FILE
from hpc_agent.relay.identity import JobIdentity, JobReport, ReportAnswer
from hpc_agent.relay.server import Relay
from hpc_agent.relay.settings import RelaySettings
from hpc_agent.relay.upstream import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What ``relay.json`` tells jobs."""

    addresses: list[str]
    certificate: str


@asynccontextmanager
async def reachable_relay(
    config: AgentConfig, directory: Path, *, agent_runs: bool
) -> AsyncIterator[Announced]:
    """Yield the running agent's relay, or one of our own as the agent would start it."""
    if agent_runs:
        yield await asyncio.to_thread(_announced, config.work_dir)
        return
    settings = RelaySettings(
        state_dir=directory / "relay",
        work_dir=directory,
        bind=config.relay.bind,
        port=config.relay.port or _last_port(config),
        advertise=tuple(config.relay.advertise),
        allow=tuple(config.relay.allow),
    )
    await asyncio.to_thread(settings.state_dir.mkdir, mode=0o700)
    async with httpx.AsyncClient() as client:
        upstream = Upstream(api=client, storage=client, credentials=_no_credentials)
        async with Relay(settings, directory=_Nobody(), upstream=upstream, on_report=_no_report):
            yield await asyncio.to_thread(_announced, directory)


class _Nobody:
    """A relay's directory without jobs: whoever comes is asked for a token."""

    async def identify(self, token: str) -> JobIdentity | None:
        """Know no token."""
        return None


async def _no_report(identity: JobIdentity, report: JobReport) -> ReportAnswer:
    return ReportAnswer(proceed=False)


def _no_credentials(deployment: str) -> Mapping[str, str]:
    return {}


def _announced(directory: Path) -> Announced:
    content = json.loads((directory / RELAY_FILE).read_text())
    return Announced(addresses=content["addresses"], certificate=content["certificate"])


def _last_port(config: AgentConfig) -> int:
    """Return the port that the agent will take again, since a firewall may know it."""
    try:
        return int((config.home / "relay-port").read_text())
    except (OSError, ValueError):
        return 0
