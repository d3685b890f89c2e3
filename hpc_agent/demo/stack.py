"""A whole Dagster on one machine: control plane, agent and a scheduler, started and taken down."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpc_agent.cluster.cluster import open_cluster
from hpc_agent.config import AgentConfig, load_config
from hpc_agent.demo.cluster import ClusterChoice, Say
from hpc_agent.demo.processes import Child, wait_for
from hpc_agent.demo.webserver import Webserver
from hpc_agent.errors import HpcAgentError
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.private_directories import private_directory
from hpc_agent.private_files import write_private
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.store.selection import EVERYTHING

EXAMPLE = Path(__file__).parent / "location"
_START_SECONDS = 180.0
_JOBS_GONE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """Where a stack lives: ``local`` on this machine's disk, ``shared`` where nodes see it."""

    local: Path
    shared: Path

    @property
    def control_plane(self) -> Path:
        """The control plane's home."""
        return self.local / "cp"

    @property
    def ca(self) -> Path:
        """The authority of the control plane's certificate."""
        return self.control_plane / "tls" / "ca.pem"

    @property
    def logs(self) -> Path:
        """Logs of what we start."""
        return self.local / "logs"

    @property
    def agent_yaml(self) -> Path:
        """The agent's configuration."""
        return self.local / "agent.yaml"


class Stack:
    """Starts the parts one by one; ``close`` takes down what was started, jobs included."""

    def __init__(
        self,
        cluster: ClusterChoice,
        directories: Directories,
        *,
        say: Say,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.cluster = cluster
        self.directories = directories
        self._say = say
        self._settings = dict(settings or {})
        self._command = [sys.executable, "-m", "hpc_agent"]
        self.control_plane = self._child("control plane", [])
        self.agent = self._child("agent", ["start", "--config", str(directories.agent_yaml)])
        self.api_url = ""
        self.webserver: Webserver

    def start_control_plane(
        self,
        *options: str,
        api_host: str = "127.0.0.1",
        api_port: int = 0,
        webserver_port: int = 0,
    ) -> None:
        """Start gateway, webserver and daemon, with more options; return when they answer."""
        for directory in (self.directories.local, self.directories.shared, self.directories.logs):
            private_directory(directory)
        ready = self.directories.logs / "control-plane.json"
        self.control_plane.argv = [
            *self._command,
            *("control-plane", "start", "--home", str(self.directories.control_plane)),
            *("--host", api_host, "--port", str(api_port)),
            *("--webserver-port", str(webserver_port), "--json"),
            *options,
        ]
        with ready.open("wb") as stdout:
            self.control_plane.start(stdout)
        addresses = wait_for(
            "the control plane does not come up",
            lambda: _json(ready),
            seconds=_START_SECONDS,
            alive=[self.control_plane],
        )
        self.api_url = addresses["api"]
        token = self._token("--name", "demo-user", "--kind", "user")
        self.webserver = Webserver(addresses["ui"], token=token, ca=self.directories.ca)

    def configure_agent(self) -> AgentConfig:
        """Make a token and write agent.yaml."""
        token = self.directories.local / "token"
        write_private(token, self._token("--name", "demo"))
        shared = self.cluster.is_shared
        content: dict[str, Any] = {
            "control_plane": {
                "url": self.api_url,
                "token_file": str(token),
                "ca_bundle": str(self.directories.ca),
            },
            "work_dir": str(self.directories.shared / "work"),
            "home": str(self.directories.local / "agent"),
            "scheduler": self._scheduler(),
            "environment": {
                "python": sys.executable,
                "variables": {"HPC_AGENT_DEMO_DATA": str(self.directories.shared / "data")},
            },
            "relay": {"bind": "0.0.0.0" if shared else "127.0.0.1"},  # noqa: S104 - nodes dial it
        }
        for key, value in self._settings.items():
            content[key] = (
                {**content[key], **value} if isinstance(content.get(key), dict) else value
            )
        self.directories.agent_yaml.write_text(yaml.safe_dump(content))
        return self.config

    @property
    def config(self) -> AgentConfig:
        """The agent's configuration."""
        return load_config(self.directories.agent_yaml, environ={})

    def start_agent(self) -> None:
        """Start the agent; return when it is connected."""
        since = self.agent.log.stat().st_size if self.agent.log.exists() else 0
        self.agent.start()
        wait_for(
            "the agent does not connect",
            lambda: b"connected to" in self.agent.log.read_bytes()[since:],
            seconds=60,
            alive=[self.agent, self.control_plane],
        )

    def deploy(self, locations: Mapping[str, Mapping[str, Any]], *, prune: bool = False) -> None:
        """Deploy code locations: name to the keys of dagster_cloud.yaml; ``prune`` the others."""
        path = self.directories.local / "dagster_cloud.yaml"
        entries = [{"location_name": name, **entry} for name, entry in locations.items()]
        path.write_text(yaml.safe_dump({"locations": entries}))
        self.run_command(
            *("control-plane", "deploy", str(path), *(["--prune"] if prune else [])),
            *("--home", str(self.directories.control_plane)),
        )

    def deploy_example(self) -> None:
        """Deploy the example code location."""
        self.deploy({"example": example_location()})

    def wait_loaded(self, location: str, *, seconds: float = _START_SECONDS) -> None:
        """Wait until the webserver shows a location's definitions."""

        shown: list[str] = []

        def look() -> bool:
            locations = self.webserver.locations()
            if location in locations and locations[location] is None:
                return True
            shown[:] = [str(locations.get(location, "it is not there"))]
            return False

        alive = [self.agent, self.control_plane]
        try:
            wait_for(f"code location {location} does not load", look, seconds=seconds, alive=alive)
        except HpcAgentError as error:
            raise HpcAgentError(f"{error}\n--- it shows\n{''.join(shown)}") from None

    def wait_finished(self, run_id: str, *, seconds: float = 180.0) -> str:
        """Wait for a run's end and return its status."""
        return wait_for(
            f"run {run_id} does not end",
            lambda: self.webserver.finished(run_id),
            seconds=seconds,
            alive=[self.agent, self.control_plane],
        )

    def printed(self, run_id: str, *, seconds: float = 60.0) -> list[dict[str, str]]:
        """Return what each process of a run has printed, once its job is over: then it is whole."""
        wait_for(
            f"the job of run {run_id} does not end",
            lambda: self.job_of(run_id=run_id)["ended_at"] is not None,
            seconds=seconds,
            alive=[self.agent],
        )
        return list(self.webserver.compute_logs(run_id).values())

    def job_of(self, *, run_id: str | None = None, location: str | None = None) -> dict[str, Any]:
        """Return the job of a run, or the serving one of a code location, as the agent has it."""
        for job in read_jobs(self.config, EVERYTHING):
            if run_id is not None and job["run_id"] == run_id and job["step"] is None:
                return job
            is_server = job["kind"] == "code_server" and job["location"] == location
            if is_server and job["phase"] == "running":
                return job
        raise HpcAgentError(f"the agent has no job for {run_id or location}")

    def jobs_of_steps(self, run_id: str) -> list[dict[str, Any]]:
        """Return the jobs that a run has asked for, as the agent has them."""
        rows = read_jobs(self.config, EVERYTHING)
        return [row for row in rows if row["run_id"] == run_id and row["kind"] == "step"]

    def run_command(self, *arguments: str) -> str:
        """Run an ``hpc-agent`` command and return its output."""
        done = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise HpcAgentError(f"hpc-agent {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def close(self) -> None:
        """Stop the agent, then the control plane while the jobs are ended."""
        self.agent.stop()
        self.control_plane.terminate()
        if (self.directories.local / "agent").exists():
            asyncio.run(_end_jobs(self.config, self._say))
        self.control_plane.stop()
        if hasattr(self, "webserver"):
            self.webserver.close()

    def _token(self, *options: str) -> str:
        home = ("--home", str(self.directories.control_plane), "--json")
        created = self.run_command("control-plane", "token", "create", *options, *home)
        return str(json.loads(created)["token"])

    def _scheduler(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"kind": self.cluster.kind}
        if self.cluster.slurm_conf is not None:
            settings["slurm_conf"] = str(self.cluster.slurm_conf)
        return settings

    def _child(self, name: str, arguments: list[str]) -> Child:
        log = self.directories.logs / f"{name.replace(' ', '-')}.log"
        # dagster-webserver and dagster-daemon are found next to this Python.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return Child(name, [*self._command, *arguments], log, environment={"PATH": path})


def example_location() -> dict[str, Any]:
    """Return the example code location as dagster_cloud.yaml has it, with absolute paths."""
    content = yaml.safe_load((EXAMPLE / "dagster_cloud.yaml").read_text())
    entry = {key: value for key, value in content["locations"][0].items() if key != "location_name"}
    return {**entry, "working_directory": str(EXAMPLE)}


async def _end_jobs(config: AgentConfig, say: Say) -> None:
    """Cancel the jobs that the agent left running, and see that they are gone."""
    mine = {
        str(job["job_id"])
        for job in read_jobs(config, EVERYTHING)
        if job["job_id"] and job["phase"] in {"queued", "running"}
    }
    if not mine:
        return
    say(f"Ending {len(mine)} job{'s' if len(mine) > 1 else ''}")
    async with open_cluster(config) as cluster:
        for job_id in mine:
            await cluster.scheduler.cancel(job_id)
        await _see_end(cluster.scheduler, mine)


async def _see_end(scheduler: Scheduler, mine: set[str]) -> None:
    deadline = time.monotonic() + _JOBS_GONE_SECONDS
    while time.monotonic() < deadline:
        left = [
            record
            for record in (await scheduler.queue()).records
            if record.job_id in mine and not record.state.is_final
        ]
        if not left:
            return
        await asyncio.sleep(0.3)
    raise HpcAgentError(f"jobs do not end: {', '.join(record.job_id for record in left)}")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
