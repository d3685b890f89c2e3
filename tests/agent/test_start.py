"""``hpc-agent start`` as a process: what it loads, what it says, what it leaves alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.agent.gateway import scripted_gateway
from tests.relay.fake_control_plane import FakeControlPlane, Received


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_config(directory: Path, url: str, *, work: Path | None = None) -> Path:
    """Write an agent.yaml for the local scheduler."""
    directory.mkdir(exist_ok=True)
    token = directory / "token"
    token.touch(mode=0o600)
    token.write_text("agent:me:secret")
    path = directory / "agent.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "control_plane": {"url": url, "token_file": str(token)},
                "work_dir": str(work or directory / "work"),
                "home": str(directory / "home"),
                "scheduler": {"kind": "local"},
                "relay": {"bind": "127.0.0.1"},
            }
        )
    )
    return path


class Agent:
    """An agent process."""

    def __init__(self, config: Path, *options: str, command: Sequence[str] = ("start",)) -> None:
        self.log = config.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *options, "-m", "hpc_agent", *command, "--config", str(config)],
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def wait_for(self, words: str) -> str:
        """Return the log once it holds these words."""
        deadline = time.monotonic() + 60
        while words not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return self.log.read_text()

    def stop(self) -> int:
        """End the process and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def test_agent_runs_without_loading_dagster(
    tmp_path: Path, control_plane: FakeControlPlane
) -> None:
    """Three seconds and sixty megabytes that a login node does not owe us."""
    control_plane.answer = {"data": {"userCloudAgent": {"popUserCloudAgentRequests": []}}}
    agent = Agent(write_config(tmp_path, control_plane.url), "-X", "importtime")
    agent.wait_for("connected to")
    assert agent.stop() == 0
    imported = [line.rsplit("|", 1)[-1].strip() for line in agent.log.read_text().splitlines()]
    assert "hpc_agent.agent.daemon" in imported
    assert [name for name in imported if name.split(".")[0].startswith("dagster")] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("control_plane: {url: 'https://x'}\nwork_dir: /w\nrelays: {}\n", "relays: unknown key"),
        ("control_plane: {url: 'https://x'}\nwork_dir: /w\nhome: 3\n", "home"),
        ("control_plane: {url: 'https://x'}\nwork_dir: /w\n", "no agent token"),
    ],
)
def test_broken_configuration_is_one_message_and_exit_code_2(
    tmp_path: Path, content: str, words: str
) -> None:
    """File, key and reason, no traceback."""
    path = tmp_path / "agent.yaml"
    path.write_text(content)
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_CLOUD_AGENT_TOKEN"}
    done = subprocess.run(
        [sys.executable, "-m", "hpc_agent", "start", "--config", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_absent_control_plane_is_told_and_tried_again(tmp_path: Path) -> None:
    """The agent says so, keeps trying, and starts no work."""
    control_plane = FakeControlPlane(port=free_port())
    agent = Agent(write_config(tmp_path, control_plane.url))
    agent.wait_for("poll: ")
    assert list((tmp_path / "work" / "jobs").iterdir()) == []
    control_plane.answer = {"data": {"userCloudAgent": {"popUserCloudAgentRequests": []}}}
    control_plane.start()
    agent.wait_for("connected to")
    assert agent.stop() == 0
    control_plane.stop()


def test_refused_token_is_told_and_tried_again(
    tmp_path: Path, control_plane: FakeControlPlane
) -> None:
    """A token that is refused may be accepted tomorrow: the agent does not give up."""
    control_plane.status = 401
    agent = Agent(write_config(tmp_path, control_plane.url))
    agent.wait_for("refuses the agent token")
    control_plane.answer = {"data": {"userCloudAgent": {"popUserCloudAgentRequests": []}}}
    control_plane.status = 200
    agent.wait_for("connected to")
    assert agent.stop() == 0


def test_deployment_that_does_not_exist_ends_the_agent(tmp_path: Path) -> None:
    """In the stock agent's words: it would be idle for ever, and nobody would know why."""

    def answer(call: Received) -> tuple[int, Any]:
        if b"query Deployments" in call.body:
            return 200, {"data": {"deployments": [{"deploymentName": "production"}]}}
        return 200, {"data": {"userCloudAgent": {"popUserCloudAgentRequests": []}}}

    with scripted_gateway(answer) as gateway:
        agent = Agent(write_config(tmp_path, gateway.url))
        assert agent.process.wait(60) == 2
    log = agent.log.read_text()
    assert "Agent is configured to serve an invalid deployment prod." in log
    assert "control_plane.deployments in agent.yaml" in log
    assert "Traceback" not in log


def test_second_agent_with_the_same_home_is_refused(
    tmp_path: Path, control_plane: FakeControlPlane
) -> None:
    """The message says which process has it."""
    control_plane.answer = {"data": {"userCloudAgent": {"popUserCloudAgentRequests": []}}}
    config = write_config(tmp_path, control_plane.url)
    first = Agent(config)
    first.wait_for("connected to")
    second = subprocess.run(
        [sys.executable, "-m", "hpc_agent", "start", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"process {first.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.stop() == 0


def test_second_agent_with_the_same_work_dir_is_refused(
    tmp_path: Path, control_plane: FakeControlPlane
) -> None:
    """Else the jobs of the first one would be led to the second one's relay, and refused there."""
    control_plane.answer = {"data": {"userCloudAgent": {"popUserCloudAgentRequests": []}}}
    first = Agent(write_config(tmp_path, control_plane.url))
    first.wait_for("connected to")
    told = (tmp_path / "work" / "relay.json").read_text()
    other = write_config(tmp_path / "other", control_plane.url, work=tmp_path / "work")
    second = Agent(other)
    assert second.process.wait(60) == 2
    said = second.log.read_text()
    assert f"belongs to another agent: {_agent_id(tmp_path)}, with its home" in said
    assert f"{tmp_path / 'home'} on {socket.gethostname()}" in said
    assert "hpc-agent start --take-over-work-dir" in said
    assert (tmp_path / "work" / "relay.json").read_text() == told
    assert first.stop() == 0

    successor = Agent(other, command=["start", "--take-over-work-dir"])
    successor.wait_for("connected to")
    assert "is taken over from" in successor.log.read_text()
    assert successor.stop() == 0
    again = Agent(other)
    again.wait_for("connected to")
    assert again.stop() == 0


def _agent_id(directory: Path) -> str:
    owner = json.loads((directory / "work" / "owner.json").read_text())
    return str(owner["agent_id"])
