"""Who comes in: by a login in the browser, or with a token in each request."""

from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy as sa

from hpc_agent.control_plane.door.attempts import FAILURES, Attempts, TooManyAttemptsError
from hpc_agent.control_plane.door.login import MAX_FORM_BYTES, local_path
from hpc_agent.control_plane.door.visitor import SESSION_COOKIE
from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import ui_sessions
from hpc_agent.control_plane.store.sessions import SESSIONS_PER_TOKEN, Sessions
from hpc_agent.control_plane.store.tokens import TokenKind
from tests.control_plane.door.conftest import PAGE, Setting


@pytest.mark.parametrize(
    "path",
    ["/", "/graphql", "/server_info", "/_next/static/x.js", "/logs/a/out", "/logout", "/login/",
     "//login", "/login/../server_info", "/download_debug/x"],
)  # fmt: skip
async def test_stranger_gets_nothing_but_the_login_page(setting: Setting, path: str) -> None:
    """Neither pages nor files nor the release; the webserver does not even hear of it."""
    async with setting.client() as client:
        answer = await client.get(path)
        assert answer.status_code == 401
        assert (await client.post(path, content=b"x")).status_code == 401
        assert (await client.get("/login")).status_code == 200
    assert setting.webserver.requests == []


async def test_browser_is_led_to_the_login_and_back(setting: Setting) -> None:
    """The page that was asked for is the one that is shown after the login."""
    async with setting.client() as client:
        asked = await client.get("/runs/abc?tab=a%20b", headers=PAGE)
        assert asked.status_code == 303
        form = await client.get(asked.headers["Location"])
        assert 'name="next" value="/runs/abc?tab=a%20b"' in form.text

        answer = await client.post(
            "/login",
            data={"token": f" {setting.token()}\n", "next": "/runs/abc?tab=a%20b"},
            headers={"Origin": setting.url},
        )

        assert (answer.status_code, answer.headers["Location"]) == (303, "/runs/abc?tab=a%20b")
        assert (await client.get("/runs/abc")).status_code == 200
    cookie = answer.headers["Set-Cookie"]
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/", "Max-Age="):
        assert attribute in cookie
    assert cookie.startswith("__Host-")
    assert "Domain" not in cookie


@pytest.mark.parametrize("header", ["Authorization", "Dagster-Cloud-Api-Token"])
async def test_script_comes_in_with_its_token(setting: Setting, header: str) -> None:
    """As dagster_graphql and the stock CLIs send it; the webserver never sees it."""
    token = setting.token()
    value = f"Bearer {token}" if header == "Authorization" else token
    async with setting.client() as client:
        answer = await client.post(
            "/graphql", json={"query": "{ version }"}, headers={header: value}
        )
    assert answer.json() == {"data": {"ok": True}}
    assert token not in str(setting.webserver.requests)


async def test_agent_token_opens_no_door(setting: Setting) -> None:
    """It is for the agent API: neither by header nor by login."""
    _, secret = setting.tokens.create("agent", TokenKind.AGENT)
    async with setting.client() as client:
        bearer = {"Authorization": f"Bearer {secret}"}
        assert (await client.get("/", headers=bearer)).status_code == 401
        answer = await client.post(
            "/login", data={"token": secret}, headers={"Origin": setting.url}
        )
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


async def test_logout_ends_the_session_itself(setting: Setting) -> None:
    """A copy of the cookie is worth nothing afterwards."""
    async with setting.browser() as browser:
        copy = browser.cookies[SESSION_COOKIE]
        assert "someone, admin" in (await browser.get("/logout")).text

        assert (await browser.post("/logout")).headers["Location"] == "/login"

        assert (await browser.get("/")).status_code == 401
    async with setting.client() as thief:
        thief.cookies.set(SESSION_COOKIE, copy)
        assert (await thief.get("/")).status_code == 401


async def test_revoked_token_ends_its_sessions(setting: Setting) -> None:
    """At the next request, not at the session's end."""
    async with setting.browser() as browser:
        assert (await browser.get("/")).status_code == 200
        (token,) = setting.tokens.all()

        setting.tokens.revoke(token.token_id)

        assert (await browser.get("/")).status_code == 401


async def test_session_ends_by_itself(setting: Setting, database: Database) -> None:
    """The server's clock counts, not the cookie's Max-Age."""
    async with setting.browser() as browser:
        with database.write() as connection:
            connection.execute(sa.update(ui_sessions).values(expires_at=time.time() - 1))
        assert (await browser.get("/")).status_code == 401


def test_sessions_are_bounded_and_swept(database: Database) -> None:
    """A script that logs in over and over fills no table, and keeps its newest session."""
    sessions = Sessions(database)
    for _ in range(SESSIONS_PER_TOKEN + 5):
        sessions.open("token")
    with database.read() as connection:
        rows = connection.execute(sa.select(ui_sessions.c.digest)).all()
    assert len(rows) == SESSIONS_PER_TOKEN
    with database.write() as connection:
        connection.execute(sa.update(ui_sessions).values(expires_at=0.0))

    sessions.sweep()

    with database.read() as connection:
        assert connection.execute(sa.select(ui_sessions)).all() == []


async def test_database_does_not_hold_the_cookie(setting: Setting, database: Database) -> None:
    """Who can read a backup cannot come in with it."""
    async with setting.browser() as browser:
        secret = browser.cookies[SESSION_COOKIE]
    with database.read() as connection:
        assert secret not in str(connection.execute(sa.select(ui_sessions)).all())


@pytest.mark.parametrize("way", ["login", "header"])
async def test_wrong_tokens_are_limited_per_address(setting: Setting, way: str) -> None:
    """Also when all are sent at once; another address is not concerned."""

    async def show_wrong(address: str) -> int:
        async with setting.client(address) as client:
            if way == "header":
                bearer = {"Authorization": "Bearer wrong"}
                return (await client.get("/", headers=bearer)).status_code
            origin = {"Origin": setting.url}
            return (await client.post("/login", data={"token": "x"}, headers=origin)).status_code

    statuses = await asyncio.gather(*[show_wrong("127.0.0.2") for _ in range(FAILURES + 5)])

    assert sorted(statuses) == [401] * FAILURES + [429] * 5
    assert await show_wrong("127.0.0.3") == 401


def test_attempts_are_forgotten_in_time_and_in_number() -> None:
    """Good ones do not count, old ones do not, and of IPv6 a whole /64 is one peer."""
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(FAILURES * 2):
        with attempts.one("192.0.2.1") as attempt:
            attempt.succeed()
    for number in range(FAILURES):
        with attempts.one(f"2001:db8::{number:x}"):
            pass
    with pytest.raises(TooManyAttemptsError), attempts.one("2001:db8::ffff"):
        pass
    now[0] = 61.0
    with attempts.one("2001:db8::ffff"):
        pass
    for number in range(5000):
        with attempts.one(f"10.0.{number // 250}.{number % 250}"):
            pass
    assert len(attempts._failures) <= 4096


async def test_login_form_is_bounded(setting: Setting) -> None:
    """A stranger's body is read up to a few kilobytes, announced or not."""

    async def endless() -> object:
        for _ in range(1000):
            yield b"a" * MAX_FORM_BYTES

    async with setting.client() as client:
        answer = await client.post(
            "/login",
            content=endless(),  # type: ignore[arg-type]
            headers={"Origin": setting.url},
        )
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "/\t/evil.example",
     "/\n/evil.example", "javascript:alert(1)", "", "evil"],
)  # fmt: skip
def test_login_leads_to_no_other_site(wanted: str) -> None:
    """A link to our login page is none to a stranger's."""
    assert local_path(wanted) == "/"


async def test_login_page_escapes_what_it_shows(setting: Setting) -> None:
    """And allows no script at all."""
    async with setting.client() as client:
        answer = await client.get("/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script" not in answer.text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_link_on_another_site_finds_the_session(setting: Setting) -> None:
    """The cookie does not come with it: a page of ours asks again, with the cookie."""
    async with setting.client() as client:
        answer = await client.get('/runs/a"b?x=1', headers={**PAGE, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert answer.text == '<meta http-equiv="refresh" content="0; url=/runs/a%22b?x=1">'


async def test_role_is_shown_to_who_has_logged_in(setting: Setting) -> None:
    async with setting.browser(Role.VIEWER) as browser:
        assert "someone, viewer" in (await browser.get("/logout")).text
