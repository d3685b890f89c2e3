"""Visitors whom a trusted proxy names."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest
import pytest_asyncio

from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.door.attempts import FAILURES, Attempts
from hpc_agent.control_plane.door.config import ProxyConfig, UiAuth, UiConfig, read_ui_config
from hpc_agent.control_plane.door.door import open_door
from hpc_agent.control_plane.door.proxy_user import ByProxy
from hpc_agent.control_plane.door.visitor import UserTokens
from hpc_agent.control_plane.http.auth import TokenFinder
from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.tokens import Tokens
from hpc_agent.control_plane.tls import ServerTls
from hpc_agent.errors import ConfigError
from hpc_agent.inbound.sockets import bind_unix
from tests.control_plane.door.conftest import PAGE, Setting, open_setting
from tests.control_plane.door.upstream import Webserver

PROXY, OTHER = "127.0.0.2", "127.0.0.3"
LAUNCH = {"query": "mutation { launchRun { __typename } }"}


@pytest_asyncio.fixture
async def proxied(
    database: Database, webserver: Webserver, tls: ServerTls, tmp_path: Path
) -> AsyncIterator[Setting]:
    """A door for a proxy at one of loopback's addresses, which ui.yaml would not take."""
    config = ProxyConfig.model_construct(
        header="X-Remote-User", socket=None, addresses=(ip_network(PROXY),),
        roles={"anna": Role.ADMIN, "jörg": Role.OPERATOR}, default_role=Role.VIEWER,
    )  # fmt: skip
    audit = AuditLog(tmp_path / "audit.log")
    users = UserTokens(TokenFinder(Tokens(database)), audit, Attempts())
    async with open_setting(database, webserver, tls, ByProxy(config, users)) as opened:
        yield opened


async def test_proxy_says_who_it_is(proxied: Setting) -> None:
    """With the role that the configuration gives the name, and from where."""
    for name, status in (("anna", 200), ("jörg", 200), ("somebody", 403)):
        headers = [
            (b"X-Remote-User", name.encode()),
            (b"Origin", proxied.url.encode()),
            (b"X-Forwarded-For", b"6.6.6.6, 192.0.2.7"),
        ]
        async with proxied.client(PROXY) as client:
            answer = await client.post("/graphql", json=LAUNCH, headers=headers)
        assert answer.status_code == status
    assert [(each["who"], each["role"], each["from"]) for each in proxied.audited()] == [
        ("anna", "admin", "192.0.2.7"),
        ("jörg", "operator", "192.0.2.7"),
        ("somebody", "viewer", "192.0.2.7"),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Remote-User": "anna"},
        {"X-Remote-User": "anna", "X-Forwarded-For": PROXY},
        {"X-Remote-User": "anna", "Forwarded": f"for={PROXY}", "X-Real-IP": PROXY},
    ],
)
@pytest.mark.parametrize("address", [OTHER, "127.0.0.1"])
async def test_others_cannot_say_who_they_are(
    proxied: Setting, headers: dict[str, str], address: str
) -> None:
    """Neither from another address nor by pretending one."""
    async with proxied.client(address) as client:
        assert (await client.get("/", headers={**headers, **PAGE})).status_code == 401
    assert proxied.webserver.requests == []


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("X-Remote-User", "")],
        [("X-Remote-User", "anna"), ("X-Remote-User", "mallory")],
        [("X-Remote-User", "a" * 201)],
        [("X_Remote_User", "anna")],
    ],
)
async def test_proxy_that_names_nobody_lets_nobody_in(
    proxied: Setting, pairs: list[tuple[str, str]]
) -> None:
    """Or two: one of them came from the visitor, past a proxy that only adds its own."""
    async with proxied.client(PROXY) as client:
        answer = await client.get("/", headers=[*pairs, *PAGE.items()])
    assert answer.status_code == 401


async def test_page_of_another_site_changes_nothing_through_the_proxy(proxied: Setting) -> None:
    """The proxy's own cookie may come with any site's requests."""
    async with proxied.client(PROXY) as client:
        client.headers["X-Remote-User"] = "anna"
        for headers in ({}, {"Origin": "https://evil.example"}):
            answer = await client.post("/graphql", json=LAUNCH, headers=headers)
            assert answer.status_code == 403
    assert proxied.webserver.requests == []


async def test_nobody_logs_in_where_the_proxy_does_that(proxied: Setting) -> None:
    """The path is the UI's like any other."""
    async with proxied.client(OTHER) as client:
        assert (await client.get("/login", headers=PAGE)).status_code == 401
        assert (await client.post("/login", data={"token": proxied.token()})).status_code == 401


async def test_script_with_a_token_needs_no_proxy(proxied: Setting) -> None:
    """And wrong ones count for the visitor whom the proxy speaks for, not for all of its."""
    async with proxied.client(OTHER) as client:
        client.headers["Authorization"] = f"Bearer {proxied.token()}"
        assert (await client.post("/graphql", json=LAUNCH)).status_code == 200
    async with proxied.client(PROXY) as client:
        wrong = {"Authorization": "Bearer x", "X-Forwarded-For": "192.0.2.7"}
        statuses = [(await client.get("/", headers=wrong)).status_code for _ in range(FAILURES + 1)]
        assert statuses == [401] * FAILURES + [429]
        wrong["X-Forwarded-For"] = "192.0.2.8"
        assert (await client.get("/", headers=wrong)).status_code == 401


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("auth: header\nhosts: [x]", "needs `proxy`"),
        ("auth: header\nproxy: {socket: /x/y}", "needs `hosts`"),
        ("auth: header\nhosts: [x]\nproxy: {}", "either `socket` or `addresses`"),
        ("auth: header\nhosts: [x]\nproxy: {addresses: [127.0.0.1]}", "every user of this machine"),
        ("auth: header\nhosts: [x]\nproxy: {addresses: ['::1']}", "every user of this machine"),
        ("auth: header\nhosts: [x]\nproxy: {socket: x.sock}", "absolute"),
        ("auth: header\nhosts: [x]\nproxy: {socket: /x, roles: {anna: root}}", "roles"),
        ("auth: nobody", "auth"),
        ("autth: token", "autth"),
        ("[]x", "cannot read"),
        ("- a", "keys and values"),
    ],
)
def test_wrong_configuration_is_explained(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_ui_config(write(tmp_path / "ui.yaml", text))


def test_own_address_is_no_proxys(tmp_path: Path) -> None:
    """Every user of this machine can connect from it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))
        own = probe.getsockname()[0]
    if own == "0.0.0.0":
        pytest.skip("this machine has no address but loopback's")
    text = f"auth: header\nhosts: [x]\nproxy: {{addresses: [{own}]}}"
    with pytest.raises(ConfigError, match="every user of this machine"):
        read_ui_config(write(tmp_path / "ui.yaml", text))


def test_option_goes_before_the_file(tmp_path: Path) -> None:
    """A bare ``off`` is the word, though YAML reads it as false."""
    path = write(tmp_path / "ui.yaml", "auth: off\nhosts: [dagster.example.org]")
    assert read_ui_config(path).auth is UiAuth.OFF
    chosen = read_ui_config(path, "token")
    assert (chosen.auth, chosen.hosts) == (UiAuth.TOKEN, ("dagster.example.org",))
    assert read_ui_config(tmp_path / "none.yaml").auth is UiAuth.TOKEN


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "dagster.example.org"])
def test_door_without_a_login_is_open_to_this_machine_alone(tls: ServerTls, host: str) -> None:
    with pytest.raises(ConfigError, match="to everybody who reaches"):
        open_door(UiConfig(auth=UiAuth.OFF), host, 0, tls)


def test_missing_login_is_said_loudly(tls: ServerTls, caplog: pytest.LogCaptureFixture) -> None:
    open_door(UiConfig(auth=UiAuth.OFF), "127.0.0.1", 0, tls).listener.close()
    assert "THE UI HAS NO LOGIN" in caplog.text


def test_socket_is_for_the_proxys_group(tmp_path: Path) -> None:
    """Mode 0660, in place of what an earlier start has left; never in place of a file."""
    path = tmp_path / "door.sock"
    for _ in range(2):
        bind_unix(path).close()
        assert path.stat().st_mode & 0o777 == 0o660
    path.unlink()
    path.write_text("precious")
    with pytest.raises(ConfigError):
        bind_unix(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_socket_is_in_nobody_elses_hands(tmp_path: Path, mode: int) -> None:
    """Who can write into its directory can put a socket of his own there, and read along."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(mode)
    with pytest.raises(ConfigError, match="let nobody else write"):
        bind_unix(tmp_path / "d" / "door.sock")
