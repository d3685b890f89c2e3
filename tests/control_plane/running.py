"""A control plane and a stock Dagster+ agent as real processes, for end-to-end tests."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from hpc_agent.conformance import stock_agent

CLI = [sys.executable, "-c", "from hpc_agent.cli.control_plane import app; app()"]
PATIENCE_SECONDS = 150.0

T = TypeVar("T")


def poll(find: Callable[[], T | None], what: str, patience: float = PATIENCE_SECONDS) -> T:
    """Return the first true value of ``find``; fail with ``what`` when there is none in time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {patience:.0f} s: {what}")


class ControlPlane:
    """A running ``control-plane start`` and its UI's GraphQL."""

    def __init__(
        self,
        home: Path,
        addresses: Mapping[str, Any],
        process: subprocess.Popen[bytes],
    ) -> None:
        self.home = home
        self.process = process
        self.api: str = addresses["api"]
        self.ui: str = addresses["ui"]
        self.ca: str = addresses["ca"]
        self.trust = ssl.create_default_context(cafile=self.ca)
        self.user_token = self.cli("token", "create", "--kind", "user").strip()

    def cli(self, *arguments: str) -> str:
        return run_cli(*arguments, "--home", str(self.home)).stdout

    def query(self, document: str, **variables: Any) -> Any:
        """Execute GraphQL against the stock webserver."""
        response = httpx.post(
            f"{self.ui}/graphql",
            json={"query": document, "variables": variables},
            timeout=60,
            verify=self.trust,
            headers={"Authorization": f"Bearer {self.user_token}"},
        )
        body = response.json()
        assert "errors" not in body, body
        return body["data"]

    def location(self, name: str) -> dict[str, Any] | None:
        """Return what the UI shows of a code location."""
        data = self.query(
            """{ workspaceOrError { ... on Workspace { locationEntries { name
                 locationOrLoadError { __typename
                   ... on RepositoryLocation { repositories { name } }
                   ... on PythonError { message className stack
                     errorChain { error { message stack } } } } } } } }"""
        )
        entries = data["workspaceOrError"]["locationEntries"]
        return next((e["locationOrLoadError"] for e in entries if e["name"] == name), None)

    def is_loaded(self, name: str) -> bool:
        location = self.location(name)
        return location is not None and location["__typename"] == "RepositoryLocation"

    def launch(
        self, job: str, config: Mapping[str, Any] | None = None, location: str = "pipelines"
    ) -> str:
        data = self.query(
            """mutation Launch($p: ExecutionParams!) { launchRun(executionParams: $p) {
                 __typename ... on LaunchRunSuccess { run { runId } }
                 ... on PythonError { message } } }""",
            p={
                "selector": {
                    "repositoryLocationName": location,
                    "repositoryName": "__repository__",
                    "jobName": job,
                },
                "runConfigData": config or {},
            },
        )
        assert data["launchRun"]["__typename"] == "LaunchRunSuccess", data
        run_id: str = data["launchRun"]["run"]["runId"]
        return run_id

    def run_status(self, run_id: str) -> str:
        data = self.query(
            "query R($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id
        )
        status: str = data["runOrError"]["status"]
        return status

    def wait_for_run(self, run_id: str, *statuses: str) -> str:
        def settled() -> str | None:
            status = self.run_status(run_id)
            if status == "FAILURE" and status not in statuses:
                raise AssertionError(f"run failed: {self.messages(run_id)}")
            return status if status in statuses else None

        return poll(settled, f"run {run_id} {' or '.join(statuses)}")

    def messages(self, run_id: str) -> list[str]:
        data = self.query(
            """query L($id: ID!) { logsForRun(runId: $id) { ... on EventConnection {
                 events { __typename ... on MessageEvent { message } } } } }""",
            id=run_id,
        )
        return [event.get("message", "") for event in data["logsForRun"]["events"]]


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], check=True, capture_output=True, text=True)


@contextmanager
def running_control_plane(home: Path, *options: str) -> Iterator[ControlPlane]:
    """Start a control plane on free ports unless ``options`` name some, and end it."""
    arguments = ["--home", str(home), "--port", "0", "--webserver-port", "0", "--json", *options]
    log = home.parent / f"{home.name}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*CLI, "start", *arguments], stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield ControlPlane(home, json.loads(line), process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@contextmanager
def running_stock_agent(
    plane: ControlPlane, directory: Path, serves: Mapping[str, Any] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``dagster-cloud agent run`` with its process launcher, and end it with its children.

    ``serves`` says which deployments it is for, in the words of the stock dagster.yaml.
    """
    with stock_agent.running_stock_agent(
        directory, api=plane.api, ca=plane.ca, token=plane.cli("token", "create").strip(),
        serves=serves,
    ) as process:  # fmt: skip
        yield process
