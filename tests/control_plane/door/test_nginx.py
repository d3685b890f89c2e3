"""Behind a real nginx, which knows who asks and says so over a unix socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from hpc_agent.control_plane.server import bind
from hpc_agent.control_plane.tls import ServerTls, generated_certificate
from tests.control_plane.running import ControlPlane, poll, running_control_plane

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(NGINX is None, reason="no nginx here: apt-get install nginx-light"),
]
USERS = ("anna", "ben")

# As in docs/web-ui.md, with a password file in place of the single sign-on.
SITE = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {tls.certificate};
    ssl_certificate_key {tls.key};
    auth_basic "hpc";
    auth_basic_user_file {directory}/users;
    location / {{
      proxy_pass http://unix:{socket};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Remote-User $remote_user;
      proxy_set_header Authorization "";
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The UI as its users reach it."""

    url: str
    trust: ssl.SSLContext
    plane: ControlPlane

    def client(self, user: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, verify=self.trust, auth=(user, "secret"), timeout=60,
            headers={"Origin": self.url},
        )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A control plane in header mode, and nginx before it with its own account."""
    root = tmp_path_factory.mktemp("nginx")
    with tempfile.TemporaryDirectory(prefix="door-") as short:  # a socket's path is short
        directory = Path(short)
        door = directory / "d" / "ui.sock"
        _make_directory(door.parent)
        directory.chmod(0o755)
        (root / "home").mkdir(mode=0o700)
        (root / "home" / "ui.yaml").write_text(
            json.dumps(
                {
                    "auth": "header", "hosts": ["127.0.0.1"],
                    "proxy": {"socket": str(door), "roles": {"anna": "operator"}},
                }
            )
        )  # fmt: skip
        (directory / "tls").mkdir()
        tls = generated_certificate(directory / "tls", "127.0.0.1")
        with (
            running_control_plane(root / "home", "--no-daemon") as plane,
            _running_nginx(directory, door, tls) as url,
        ):
            trust = ssl.create_default_context(cafile=str(tls.ca))
            yield Site(url=url, trust=trust, plane=plane)


def _make_directory(path: Path) -> None:
    """As docs/web-ui.md says: ours, and open to the proxy's group."""
    path.mkdir()
    if os.geteuid() == 0:
        shutil.chown(path, group="www-data")
    path.chmod(0o2750)


@contextlib.contextmanager
def _running_nginx(directory: Path, door: Path, tls: ServerTls) -> Iterator[str]:
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    users = "".join(f"{user}:{{PLAIN}}secret\n" for user in USERS)
    (directory / "users").write_text(users)
    account = "user www-data;" if os.geteuid() == 0 else ""
    site = SITE.format(directory=directory, port=port, socket=door, tls=tls)
    (directory / "nginx.conf").write_text(account + site)
    assert NGINX is not None
    with subprocess.Popen([NGINX, "-c", str(directory / "nginx.conf")]) as process:
        try:
            poll(lambda: _answers(port), "nginx answers", 30)
            yield f"https://127.0.0.1:{port}"
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        asyncio.run(_connect(port))
        return True
    return False


async def _connect(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


def test_proxy_lets_its_users_in(site: Site) -> None:
    """With the names that it has found out, and the roles that ui.yaml gives them."""
    launch = {"query": "mutation { reloadWorkspace { __typename } }"}
    for user, status in (("anna", 200), ("ben", 403)):
        with site.client(user) as client:
            assert "Dagster" in client.get("/", headers={"Accept": "text/html"}).text
            assert client.post("/graphql", json=launch).status_code == status
    found = [json.loads(line) for line in site.plane.cli("audit", "--json").splitlines()]
    assert [
        (each["who"], each["role"], each["way"], each["from"], each["outcome"])
        for each in found
        if each["what"] == "reloadWorkspace"
    ] == [
        ("anna", "operator", "proxy", "127.0.0.1", "ok"),
        ("ben", "viewer", "proxy", "127.0.0.1", "refused"),
    ]


def test_visitor_cannot_choose_a_name(site: Site) -> None:
    """What a visitor says is replaced by what nginx says."""
    with site.client("ben") as client:
        answer = client.post(
            "/graphql", json={"query": "mutation { wipeAssets { __typename } }"},
            headers={"X-Remote-User": "anna"},
        )  # fmt: skip
    assert answer.status_code == 403
    assert "viewer" in answer.text


def test_stranger_stays_outside(site: Site) -> None:
    assert httpx.get(site.url, verify=site.trust).status_code == 401


async def test_websocket_goes_through_the_proxy(site: Site) -> None:
    """And the page of another site is refused behind the proxy's own login."""
    basic = base64.b64encode(b"ben:secret").decode()
    url = site.url.replace("https", "wss") + "/graphql"
    for origin in (site.url, "https://evil.example"):
        headers = {"Authorization": f"Basic {basic}", "Origin": origin}
        connecting = connect(
            url, ssl=site.trust, subprotocols=[Subprotocol("graphql-ws")], proxy=None,
            additional_headers=headers,
        )  # fmt: skip
        if origin != site.url:
            with pytest.raises(InvalidStatus) as refused:
                await connecting
            assert refused.value.response.status_code == 403
            continue
        async with connecting as websocket, asyncio.timeout(30):
            await websocket.send('{"type": "connection_init"}')
            assert json.loads(await websocket.recv())["type"] == "connection_ack"
