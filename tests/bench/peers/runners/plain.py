"""Dagster as it comes, without an agent: webserver, code server and runs on one machine, SQLite."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from hpc_agent.demo.processes import Child, wait_for
from hpc_agent.demo.webserver import Webserver
from hpc_agent.errors import HpcAgentError
from tests.bench import at_once
from tests.bench.peers.runners.behind_webserver import BehindWebserver
from tests.bench.peers.runners.runner import CODE, LOCATION, PROCESSES_AT_MOST, Place, Served

NAME = "Dagster without agent"
_START_SECONDS = 60.0


@contextlib.contextmanager
def plain(place: Place) -> Iterator[Served]:
    """Start code server and webserver; runs are processes of the code server."""
    home = place.directory / "home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(at_once.STOCK)
    code_server = place.directory / "code.sock"
    server = {"grpc_server": {"socket": str(code_server), "location_name": LOCATION}}
    workspace = place.directory / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [server]}))
    children = _children(place.directory, home, code_server, workspace)
    with contextlib.ExitStack() as stack:
        for child in children.values():
            stack.callback(child.stop)
            child.start()
        url = children["webserver"].argv[-1]
        webserver = Webserver(f"http://127.0.0.1:{url}", token="none", ca=_any_authority())
        stack.callback(webserver.close)
        alive = list(children.values())
        wait_for("code server", code_server.exists, seconds=_START_SECONDS, alive=alive)
        wait_for("webserver", lambda: _is_loaded(webserver), seconds=_START_SECONDS, alive=alive)
        yield BehindWebserver(
            NAME,
            webserver,
            code_server=code_server,
            accepted=["Started process"],
            at_most=PROCESSES_AT_MOST,
        )


def _children(directory: Path, home: Path, code_server: Path, workspace: Path) -> dict[str, Child]:
    binaries = Path(sys.executable).parent
    environment = {"DAGSTER_HOME": str(home), "PATH": f"{binaries}:{os.environ['PATH']}"}
    serve = [str(binaries / "dagster"), "api", "grpc", "--socket", str(code_server)]
    serve += ["--python-file", str(CODE), "--inject-env-vars-from-instance", "--location-name"]
    show = [str(binaries / "dagster-webserver"), "--workspace", str(workspace), "--port"]
    return {
        "code server": Child(
            "code server", [*serve, LOCATION], directory / "code.log", environment=environment
        ),
        "webserver": Child(
            "webserver", [*show, str(_free_port())], directory / "web.log", environment=environment
        ),
    }


def _is_loaded(webserver: Webserver) -> bool:
    try:
        locations = webserver.locations()
    except HpcAgentError:
        return False
    return LOCATION in locations and locations[LOCATION] is None


def _any_authority() -> Path:
    """Return certificates that nobody asks for here: the address is plain HTTP."""
    import certifi

    return Path(certifi.where())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
