"""After kill -9 a control plane can be started again, and nothing of the first one is left."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from tests.control_plane.running import poll, running_control_plane

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def test_killed_control_plane_starts_again_on_its_ports(tmp_path: Path) -> None:
    """Webserver and daemon die with it, so that the ports are free at once."""
    ports = ("--port", free_port(), "--webserver-port", free_port())
    with running_control_plane(tmp_path / "home", *ports) as first:
        children = psutil.Process(first.process.pid).children(recursive=True)
        assert len(children) >= 2
        first.process.kill()
        first.process.wait()
    poll(lambda: not any(child.is_running() for child in children), "its children are gone")

    with running_control_plane(tmp_path / "home", *ports) as second:
        assert second.ui == first.ui
        assert second.query("{ version }")["version"]
