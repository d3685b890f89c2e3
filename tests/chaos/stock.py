"""The stock ``dagster-cloud`` agent in the place of ours, with its process launcher."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.chaos.bed import Bed
from tests.chaos.keeper import Keeper

_MARK = "HPC_AGENT_CHAOS"


class StockBed(Bed):
    """The same control plane, proxy and runs; run workers are processes of this machine."""

    patience_seconds = 120.0

    def start(self, **settings: Any) -> None:
        """Start all of it, and wait until the code location is loaded."""
        assert not settings
        self.start_control_plane()
        self.say("stock agent and code location")
        self.agent = self.make_agent("agent")
        self.agent.start()
        self.control_plane.deploy()
        self.wait_ready()

    def make_agent(self, name: str, *, before: Sequence[str] = (), **settings: Any) -> Keeper:
        """Write the stock agent's dagster.yaml and return what keeps it running."""
        assert not before and not settings
        home = self.directory / name
        home.mkdir()
        (home / "dagster.yaml").write_text(yaml.safe_dump(self._dagster_yaml()))
        binaries = Path(sys.executable).parent
        return Keeper(
            [str(binaries / "dagster-cloud"), "agent", "run"],
            self.logs / f"{name}.log",
            pid_file=self.agent_pid,
            environment={
                _MARK: str(self.directory),
                "DAGSTER_HOME": str(home),
                "REQUESTS_CA_BUNDLE": str(self.control_plane.ca),
                "PATH": f"{binaries}:{os.environ['PATH']}",
            },
        )

    def jobs_left(self) -> list[str]:
        """Return the run workers that still live."""
        return [f"process {process.pid}" for process in self._ours("execute_run")]

    def idle_jobs(self, _run_ids: Sequence[str], _began: float, _ended: float) -> int:
        """Return nothing: there is no accounting."""
        return 0

    def harmed(self) -> list[str]:
        """Return nothing: there are no jobs of others."""
        return []

    def clear(self, unfinished: Sequence[str]) -> None:
        """End what a round has left."""
        self.terminate(unfinished)
        for process in self._ours("execute_run"):
            process.kill()
        self.wait_ready()

    def close(self) -> None:
        """End all of it, also what a killed agent has left behind."""
        self.end_common()
        for process in self._ours(""):
            process.send_signal(signal.SIGKILL)

    def _ours(self, word: str) -> Iterator[psutil.Process]:
        """Return the processes that agents of this bed have started, by their environment."""
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(_MARK) == str(self.directory)
                if marked and any(word in part for part in process.cmdline()):
                    yield process
            except psutil.Error:
                continue

    def _dagster_yaml(self) -> dict[str, Any]:
        return {
            "instance_class": {
                "module": "dagster_cloud.instance",
                "class": "DagsterCloudAgentInstance",
            },
            "dagster_cloud_api": {
                "url": self.proxy.url,
                "agent_token": self.token().read_text(),
                "deployment": "prod",
            },
            "user_code_launcher": {
                "module": "dagster_cloud.workspace.user_code_launcher",
                "class": "ProcessUserCodeLauncher",
            },
        }
