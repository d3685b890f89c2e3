"""The stock agent with its process launcher, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

GOODBYE_SECONDS = 20.0


@contextlib.contextmanager
def running_stock_agent(
    directory: Path,
    *,
    api: str,
    ca: str,
    token: str,
    serves: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``dagster-cloud agent run`` in a directory, and end it with its children.

    ``serves`` says which deployments it is for, in the words of the stock dagster.yaml. What it
    prints goes to ``agent.log`` in the directory.
    """
    directory.mkdir(exist_ok=True)
    config = {
        "instance_class": {
            "module": "dagster_cloud.instance",
            "class": "DagsterCloudAgentInstance",
        },
        "dagster_cloud_api": {
            "url": api,
            "agent_token": token,
            **(serves or {"deployment": "prod"}),
        },
        "user_code_launcher": {
            "module": "dagster_cloud.workspace.user_code_launcher",
            "class": "ProcessUserCodeLauncher",
        },
    }
    (directory / "dagster.yaml").write_text(yaml.safe_dump(config))
    binaries = Path(sys.executable).parent
    added = {
        "DAGSTER_HOME": str(directory),
        "REQUESTS_CA_BUNDLE": ca,
        "PATH": f"{binaries}:{os.environ['PATH']}",
    }
    with (directory / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            [str(binaries / "dagster-cloud"), "agent", "run"],
            stdout=log,
            stderr=log,
            cwd=directory,
            start_new_session=True,
            env={**os.environ, **added, **(environment or {})},
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
