"""Pages of other sites, and other names for this one."""

from __future__ import annotations

import pytest

from hpc_agent.control_plane.door.visitor import Anybody
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.tls import ServerTls
from tests.control_plane.door.conftest import Setting, open_setting
from tests.control_plane.door.upstream import Webserver

QUERY = {"query": "{ version }"}
HOSTILE_ORIGINS = [
    "https://evil.example", "null", "", "http://127.0.0.1:PORT", "https://127.0.0.1",
    "https://127.0.0.1:1", "https://localhost:PORT", "https://127.0.0.1:PORT.evil.example",
]  # fmt: skip


@pytest.mark.parametrize("origin", HOSTILE_ORIGINS)
async def test_page_of_another_site_changes_nothing(setting: Setting, origin: str) -> None:
    """Another scheme, port or name is another site, though a browser may send it the cookie."""
    hostile = origin.replace("PORT", setting.url.rpartition(":")[2])
    async with setting.browser() as browser:
        answer = await browser.post("/graphql", json=QUERY, headers={"Origin": hostile})
        assert answer.status_code == 403
        leaving = await browser.post("/logout", headers={"Origin": hostile})
        assert leaving.status_code == 403
        assert (await browser.post("/graphql", json=QUERY)).status_code == 200
    assert len(setting.webserver.requests) == 1


async def test_session_without_an_origin_changes_nothing(setting: Setting) -> None:
    """Browsers always send it; a request that has a cookie and no origin is not explained."""
    async with setting.browser() as browser:
        del browser.headers["Origin"]
        assert (await browser.post("/graphql", json=QUERY)).status_code == 403
        assert (await browser.get("/")).status_code == 200


async def test_another_site_logs_nobody_in(setting: Setting) -> None:
    """Or else it would do so under its own account, and read what is done there."""
    async with setting.client() as client:
        for headers in ({}, {"Origin": "https://evil.example"}):
            answer = await client.post("/login", data={"token": setting.token()}, headers=headers)
            assert answer.status_code == 403


async def test_token_counts_for_nothing_on_another_sites_page(setting: Setting) -> None:
    """A script says no origin; who says a wrong one is a browser."""
    async with setting.script() as script:
        assert (await script.post("/graphql", json=QUERY)).status_code == 200
        evil = {"Origin": "https://evil.example"}
        assert (await script.post("/graphql", json=QUERY, headers=evil)).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "[::1]:1", "localhost@evil.example", ""]
)
async def test_door_has_no_other_name(setting: Setting, host: str) -> None:
    """A name that leads here by somebody else's DNS is not served, not even the login page."""
    async with setting.script() as script:
        for path in ("/login", "/"):
            answer = await script.get(path, headers={"Host": host})
            assert answer.status_code == 421
    assert setting.webserver.requests == []


async def test_names_of_the_certificate_are_served(setting: Setting) -> None:
    port = setting.url.rpartition(":")[2]
    async with setting.script() as script:
        for host in (f"localhost:{port}", "LOCALHOST", "localhost."):
            assert (await script.get("/", headers={"Host": host})).status_code == 200


async def test_every_answer_is_for_nobodys_frame(setting: Setting) -> None:
    """The webserver's own words on that, and its cookies, do not come through."""
    async with setting.script() as script:
        answers = [
            await script.get("/sets-cookie"),
            await script.get("/login"),
            await script.get("/", headers={"Host": "evil.example"}),
        ]
    for answer in answers:
        assert answer.headers.get_list("X-Frame-Options") == ["DENY"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] in {"private", "no-store"}
        assert "Set-Cookie" not in answer.headers
        assert "Server" not in answer.headers


async def test_door_without_a_login_is_not_open_to_other_sites(
    database: Database, webserver: Webserver, tls: ServerTls
) -> None:
    """A page that a user of this machine looks at can reach loopback too."""
    async with (
        open_setting(database, webserver, tls, Anybody()) as setting,
        setting.client() as client,
    ):
        assert (await client.post("/graphql", json=QUERY)).status_code == 200
        for headers, status in (
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Host": "evil.example"}, 421),
        ):
            answer = await client.post("/graphql", json=QUERY, headers=headers)
            assert answer.status_code == status
    assert len(webserver.requests) == 1
