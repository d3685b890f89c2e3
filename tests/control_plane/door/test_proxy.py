"""What goes through the door, and how."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl

import httpx
import pytest

from hpc_agent.control_plane.door.app import MAX_BODY_BYTES
from hpc_agent.control_plane.roles import Role
from tests.control_plane.door.conftest import Setting

MUTATION = "mutation { launchRun { __typename } }"


async def test_answer_is_streamed(setting: Setting) -> None:
    """Its beginning arrives while the webserver still works on its end."""
    async with setting.script() as script, script.stream("GET", "/slow") as answer:
        parts = answer.aiter_text()
        assert await anext(parts) == "first"
        setting.webserver.may_end.set()
        assert await anext(parts) == "last"


async def test_path_arrives_as_it_was_judged(setting: Setting) -> None:
    """Quoted once, with its query; what the visitor is and has stays outside."""
    async with setting.browser(Role.VIEWER) as browser:
        await browser.get("/assets/a%2Fb%20c?view=%26", headers={"X-Hpc-Agent-Read-Only": "no"})
    (seen,) = setting.webserver.requests
    assert (seen["target"], seen["query"]) == ("/assets/a/b%20c", "view=%26")
    assert seen["headers"]["x-hpc-agent-read-only"] == "yes"
    assert "cookie" not in seen["headers"]
    assert "origin" not in seen["headers"]


@pytest.mark.parametrize(
    "target",
    ["/graphql?query=mutation{launchRun{__typename}}", "/x/../graphql?query=mutation{a}",
     "/./graphql?query=mutation{a}", "/%2e%2e/graphql?query=mutation{a}",
     "/%67raphql?query=mutation{a}", "//graphql?query=mutation{a}", "/graphql/?query=mutation{a}"],
)  # fmt: skip
async def test_no_document_in_an_address_is_executed(setting: Setting, target: str) -> None:
    """The webserver would execute a mutation by GET; no spelling of its path reaches it."""
    status = await raw_get(setting, target, setting.token(Role.VIEWER))
    reached = [seen for seen in setting.webserver.requests if seen["query"]]
    assert status >= 400 or all(seen["target"] != "/graphql" for seen in reached)
    assert not any(is_graphql(seen["target"]) for seen in reached)


def is_graphql(target: str) -> bool:
    """Tell whether the webserver's router takes this for /graphql."""
    return httpx.URL("http://x" + target).path == "/graphql" and not target.startswith("//")


async def raw_get(setting: Setting, target: str, token: str) -> int:
    """Send a target as it is, which httpx would tidy up."""
    port = int(setting.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=setting.trust, server_hostname="127.0.0.1"
    )
    writer.write(
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    status = int((await reader.readline()).split()[1])
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return status


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (json.dumps({"query": MUTATION}), "text/plain"),
        (json.dumps({"query": MUTATION}), "application/graphql"),
        (MUTATION, "application/graphql"),
        (f"query={MUTATION}", "application/x-www-form-urlencoded"),
        (f'[{{"query": "{MUTATION}"}}]', "application/json"),
        ('{"query": ["x"]}', "application/json"),
        ('{"query": "{a}", "variables": "{}"}', "application/json"),
        ("[" * 100_000, "application/json"),
        ('{"query": "' + "{a" * 20_000 + '"}', "application/json"),
        ('{"query": "mutation {"}', "application/json"),
        ("\xff", "application/json"),
    ],
)  # fmt: skip
async def test_what_cannot_be_judged_is_not_sent_on(
    setting: Setting, content: str, kind: str
) -> None:
    """Other types a page may post without asking, lists, and what is no document."""
    async with setting.script() as script:
        answer = await script.post(
            f"/graphql?query={MUTATION}",
            content=content.encode("latin-1"), headers={"Content-Type": kind},
        )  # fmt: skip
    assert answer.status_code == 400
    assert setting.webserver.requests == []


async def test_document_is_sent_on_made_anew(setting: Setting) -> None:
    """Of a key that is there twice, the webserver gets the one that was judged."""
    body = '{"query": "mutation { wipeAssets { __typename } }", "query": "{ version }", "x": 1}'
    async with setting.script(Role.VIEWER) as script:
        answer = await script.post(
            "/graphql?query=mutation", content=body, headers={"Content-Type": "application/json"}
        )
    assert answer.status_code == 200
    (seen,) = setting.webserver.requests
    assert seen["query"] == ""
    assert json.loads(seen["body"]) == {"query": "{ version }", "variables": {}}


@pytest.mark.parametrize("announced", [True, False])
async def test_body_is_bounded(setting: Setting, announced: bool) -> None:
    """Also of one who was let in."""
    size = MAX_BODY_BYTES + 1

    async def parts() -> object:
        for _ in range(17):
            yield b" " * (1 << 20)

    headers = {"Content-Type": "application/json"}
    async with setting.script() as script:
        answer = await script.post(
            "/graphql",
            content=b" " * size if announced else parts(),  # type: ignore[arg-type]
            headers=headers,
        )
    assert answer.status_code == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "POST"])
async def test_other_methods_are_for_nothing(setting: Setting, method: str) -> None:
    """What the webserver may learn to do one day, the door lets through when it knows it."""
    async with setting.script() as script:
        assert (await script.request(method, "/anything")).status_code == 405
    assert setting.webserver.requests == []


async def test_webserver_that_is_away_is_told(setting: Setting) -> None:
    """With what to do, and not as an error of the door."""
    setting.webserver.socket.unlink()
    async with setting.script() as script:
        assert (await script.get("/")).status_code == 503
        answer = await script.post("/graphql", json={"query": "{ version }"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
