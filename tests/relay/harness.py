"""A relay, a fake control plane and real node programs, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.outgoing.http_client import http_client
from hpc_agent.outgoing.storage_addresses import StorageAddresses
from hpc_agent.relay.identity import JobIdentity, JobReport, Permissions, ReportAnswer
from hpc_agent.relay.server import Relay
from hpc_agent.relay.settings import RelaySettings
from hpc_agent.relay.upstream import Upstream

from .fake_control_plane import FakeControlPlane

Kind = Literal["run_worker", "code_server"]

LIMIT_SECONDS = 30.0
# The node program runs under the nodes' Python, from 3.8 on.
INTERPRETERS = [sys.executable] + [
    str(path)
    for path in sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"))
    if path.parts[-3].startswith(("3.8.", "3.13."))
]
AGENT_TOKEN = "agent-token-that-never-leaves"

STORE_EVENT = """
    mutation StoreEvent($eventRecord: EventLogEntryInput!) {
        eventLogs { StoreEvent(eventRecord: $eventRecord) { ok } }
    }
"""
HAS_RUN = "query hasRunQuery($runId: String!) { runs { hasRun(runId: $runId) } }"


def logs_of(run_id: str, io_type: str = "stderr") -> dict[str, Any]:
    """Return what the stock client asks /gen_logs_url with (compute_log_manager.py)."""
    return {
        "log_key": [run_id, "compute_logs", "hkwzqpne"],
        "io_type": io_type,
        "size_bytes": 12,
        "run_id": run_id,
        "key": "hkwzqpne",
        "method": "PUT",
    }


async def until(condition: Callable[[], bool], limit: float = LIMIT_SECONDS) -> None:
    """Poll until a condition holds."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110  (a condition of another process)
            await asyncio.sleep(0.02)


@dataclass(slots=True)
class Jobs:
    """The job directory of a test: tokens, and the reports that came in."""

    identities: dict[str, JobIdentity] = field(default_factory=dict)
    reports: list[tuple[str, JobReport]] = field(default_factory=list)
    locations: dict[str, str] = field(default_factory=dict)
    state_owners: dict[str, str] = field(default_factory=dict)
    answer: ReportAnswer = field(default_factory=ReportAnswer)

    async def identify(self, token: str) -> JobIdentity | None:
        return self.identities.get(token)

    async def location_of_run(self, run_id: str) -> str | None:
        return self.locations.get(run_id)

    async def state_owner(self, identity: JobIdentity, key: str) -> str:
        return self.state_owners.setdefault(key, identity.location)

    async def on_report(self, identity: JobIdentity, report: JobReport) -> ReportAnswer:
        self.reports.append((identity.key, report))
        return self.answer if report.event == "started" else ReportAnswer()

    def events(self, key: str) -> list[str]:
        return [report.event for reported, report in self.reports if reported == key]


def waiting(seconds: int) -> str:
    """Return a child that says where its API is, and waits."""
    told = "import os, time; print(os.environ['HPC_AGENT_API_URL'], flush=True)"
    return f"{told}; time.sleep({seconds})"


WAITING = waiting(600)


@dataclass(slots=True)
class NodeProcess:
    """A node program that runs."""

    process: asyncio.subprocess.Process
    job_dir: Path

    async def wait(self, limit: float = LIMIT_SECONDS) -> int:
        async with asyncio.timeout(limit):
            return await self.process.wait()

    def exit_record(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.job_dir / "exit.json").read_text())
        return content

    def log(self) -> str:
        return (self.job_dir / "slurm.out").read_text()

    def child_output(self) -> str:
        path = self.job_dir / "stdout"
        return path.read_text() if path.exists() else ""


class Cluster:
    """Everything a test needs, in one temporary directory."""

    def __init__(self, root: Path, control_plane: FakeControlPlane) -> None:
        self.root = root
        self.control_plane = control_plane
        self.jobs = Jobs()
        self.work_dir = root / "work"
        self.settings = RelaySettings(
            state_dir=root / "state",
            work_dir=self.work_dir,
            bind="127.0.0.1",
            patience_seconds=1.0,
            stop_seconds=1.0,
        )
        self.program = build_node_program(self.work_dir / "lib")
        self.nodes: list[NodeProcess] = []

    @contextlib.asynccontextmanager
    async def relay(self, settings: RelaySettings | None = None) -> AsyncIterator[Relay]:
        """Run a relay."""
        async with (
            http_client(base_url=self.control_plane.url, connections=100, kept=10) as api,
            http_client(connections=100, kept=10) as storage,
            Relay(
                settings or self.settings,
                directory=self.jobs,
                upstream=Upstream(
                    api=api,
                    storage=storage,
                    addresses=StorageAddresses(self.control_plane.url, []),
                    credentials=_credentials,
                ),
                on_report=self.jobs.on_report,
            ) as relay,
        ):
            yield relay

    @contextlib.asynccontextmanager
    async def loopback(
        self, job: JobIdentity, *, python: str = sys.executable
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Start a job made with ``WAITING`` and talk to its loopback as its child would."""
        node = await self.start(job, python=python)
        await until(lambda: node.child_output().endswith("\n"))
        headers = {"Dagster-Cloud-Api-Token": self.token(job.key)}
        async with httpx.AsyncClient(
            base_url=node.child_output().strip(), headers=headers, trust_env=False, timeout=60
        ) as client:
            yield client

    def job(
        self,
        number: int = 1,
        *,
        kind: Kind = "run_worker",
        argv: Sequence[str | dict[str, str]] = ("true",),
        access: Permissions = Permissions(),  # noqa: B008  (a value)
        **spec: Any,
    ) -> JobIdentity:
        """Make a job directory and its identity; the token is ``token-KEY``."""
        key = f"{'run' if kind == 'run_worker' else 'srv'}-{number:020x}"
        directory = self.directory(key)
        directory.mkdir(parents=True, mode=0o700)
        content = {
            "version": 2,
            "key": key,
            "kind": kind,
            "argv": list(argv),
            "environment": {},
            "working_directory": None,
            "grace_seconds": 30,
            "parked_connections": 2,
            "relay_timeout_seconds": 20,
        }
        (directory / "spec.json").write_text(json.dumps(content | spec))
        (directory / "token").write_text(self.token(key))
        (directory / "relay.json").symlink_to(Path("..") / ".." / "relay.json")
        identity = JobIdentity(
            key=key,
            kind=kind,
            deployment="prod",
            run_id=f"run-id-{number}" if kind == "run_worker" else None,
            location="here",
            access=access,
        )
        self.jobs.identities[self.token(key)] = identity
        return identity

    def token(self, key: str) -> str:
        return f"token-{key}"

    def directory(self, key: str) -> Path:
        return self.work_dir / "jobs" / key

    async def start(
        self,
        job: JobIdentity,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> NodeProcess:
        """Start the node program of a job as Slurm would."""
        directory = self.directory(job.key)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        with (directory / "slurm.out").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                python,
                str(self.program),
                str(directory),
                stdout=output,
                stderr=output,
                env=inherited | {"SLURM_JOB_ID": "17"} | dict(environment or {}),
            )
        node = NodeProcess(process, directory)
        self.nodes.append(node)
        return node

    async def close(self) -> None:
        """Leave no process behind."""
        for node in self.nodes:
            if node.process.returncode is None:
                node.process.send_signal(signal.SIGKILL)
                await node.process.wait()


def exists(path: str) -> bool:
    """Whether a path exists (for coroutines, where ruff warns of blocking calls)."""
    return Path(path).exists()


def python(code: str) -> list[str]:
    """Return the argv of a child that runs some Python."""
    return [sys.executable, "-c", code]


def event(number: int, run_id: str = "run-id-1") -> dict[str, Any]:
    """Return the GraphQL request that stores an event."""
    record = {"runId": run_id, "userMessage": f"message {number}", "level": 20}
    return {"query": STORE_EVENT, "variables": {"eventRecord": record}}


def _credentials(deployment: str) -> Mapping[str, str]:
    return {"Dagster-Cloud-Api-Token": AGENT_TOKEN, "X-Test-Deployment": deployment}
