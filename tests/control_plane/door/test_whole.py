"""The door before the real webserver, as `control-plane start` opens it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from dagster_graphql import DagsterGraphQLClient
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from hpc_agent.conformance.plane import environment
from hpc_agent.control_plane.home import Home
from tests.control_plane.running import ControlPlane, running_control_plane

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PERMISSIONS = "{ permissions { permission value } }"
LAUNCH = "mutation { launchRun(executionParams: {}) { __typename } }"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane with its webserver, below a directory that others may enter."""
    with tempfile.TemporaryDirectory(prefix="door-") as path:  # pytest's own ones are shut
        Path(path).chmod(0o755)
        with running_control_plane(Path(path) / "home", "--no-daemon") as running:
            yield running


def client(plane: ControlPlane, role: str) -> httpx.Client:
    token = plane.cli("token", "create", "--kind", "user", "--name", role, "--role", role).strip()
    return httpx.Client(
        base_url=plane.ui, verify=plane.trust, headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )  # fmt: skip


def test_webserver_listens_on_no_port(plane: ControlPlane) -> None:
    """The agent API and the door are the only ones; nothing of the webserver is reached else."""
    parent = psutil.Process(plane.process.pid)
    ports = {
        connection.laddr.port
        for process in (parent, *parent.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert ports == {int(url.rpartition(":")[2]) for url in (plane.api, plane.ui)}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_another_user_reaches_neither_socket_nor_log(plane: ControlPlane) -> None:
    """As he would: with his own account, and the path, which is no secret."""
    home = Home(plane.home)
    home.root.chmod(0o755)  # as one that was made by hand may be
    for path, how in (
        (home.webserver_socket, "import socket; socket.socket(socket.AF_UNIX).connect(path)"),
        (home.audit_log, "open(path)"),
    ):
        assert path.exists()
        script = f"import sys; path = sys.argv[1]; {how}"
        argv = ["/usr/bin/python3", "-c", script, str(path)]
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "PermissionError" in done.stderr, done.stderr


def test_stranger_sees_the_login_page_alone(plane: ControlPlane) -> None:
    for path in ("/", "/server_info", "/graphql", "/favicon.png"):
        assert httpx.get(plane.ui + path, verify=plane.trust).status_code == 401
    assert "User token" in httpx.get(f"{plane.ui}/login", verify=plane.trust).text


def test_ui_and_its_files_come_through(plane: ControlPlane) -> None:
    """The page with the UI's own policy, and one of its scripts."""
    with client(plane, "viewer") as viewer:
        page = viewer.get("/overview", headers={"Accept": "text/html"})
        assert "Dagster" in page.text
        assert "nonce-" in page.headers["Content-Security-Policy"]
        script = "/_next/" + page.text.split("/_next/", 1)[1].split('"', 1)[0]
        assert viewer.get(script).headers["Content-Type"].startswith(("text/", "application/"))


def test_viewer_is_shown_nothing_to_press(plane: ControlPlane) -> None:
    """The webserver itself says that a viewer may nothing, and an operator what it always says."""
    for role, may in (("viewer", False), ("operator", True)):
        with client(plane, role) as user:
            answer = user.post("/graphql", json={"query": PERMISSIONS}).json()
            values = {each["permission"]: each["value"] for each in answer["data"]["permissions"]}
            assert values["launch_pipeline_execution"] is may
            launched = user.post("/graphql", json={"query": LAUNCH})
            assert launched.status_code == (200 if may else 403) or "errors" in launched.json()
            assert ("your role is" in launched.text) is not may


def test_dagster_graphql_client_works(plane: ControlPlane) -> None:
    """The client of the Python package, with a token in its headers."""
    host, _, port = plane.ui.removeprefix("https://").rpartition(":")
    with environment({"REQUESTS_CA_BUNDLE": plane.ca}):
        stock = DagsterGraphQLClient(
            host, port_number=int(port), use_https=True,
            headers={"Authorization": f"Bearer {plane.user_token}"},
        )  # fmt: skip
        assert stock._execute("{ version }")["version"]


async def test_real_subscription_comes_through(plane: ControlPlane) -> None:
    """The UI's own protocol, answered by the real webserver."""
    async with connect(
        plane.ui.replace("https", "wss") + "/graphql", ssl=plane.trust, proxy=None,
        subprotocols=[Subprotocol("graphql-ws")],
        additional_headers={"Authorization": f"Bearer {plane.user_token}"},
    ) as websocket:  # fmt: skip
        await websocket.send('{"type": "connection_init"}')
        async with asyncio.timeout(30):
            assert json.loads(await websocket.recv())["type"] == "connection_ack"
            query = 'subscription { capturedLogs(logKey: ["a"]) { cursor } }'
            await websocket.send(
                json.dumps({"type": "start", "id": "1", "payload": {"query": query}})
            )
            answer = json.loads(await websocket.recv())
    assert (answer["type"], answer["id"]) == ("data", "1")


def test_status_tells_where_the_ui_is(plane: ControlPlane) -> None:
    assert plane.ui in plane.cli("status")


def test_missing_login_is_told(tmp_path: Path) -> None:
    """At start and in the status, for as long as it holds."""
    options = ("--no-daemon", "--ui-auth", "off")
    with running_control_plane(tmp_path / "home", *options) as open_plane:
        assert "THE UI HAS NO LOGIN" in (tmp_path / "home.log").read_text()
        assert "THE UI HAS NO LOGIN" in open_plane.cli("status")
        assert httpx.get(f"{open_plane.ui}/server_info", verify=open_plane.trust).is_success
