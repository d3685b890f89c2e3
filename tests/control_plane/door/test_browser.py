"""A person with a browser logs in, sees the UI, and logs out; a hostile page gets nowhere."""

from __future__ import annotations

import http.server
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from tests.browser import log_in, needs_browser, running_browser
from tests.control_plane.running import ControlPlane, running_control_plane

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), needs_browser]
# What a page can do without anybody's leave: post a form's types, connect, and frame.
ATTACK = """
ui => {
  const body = JSON.stringify({query: "mutation { reloadWorkspace { __typename } }"});
  return fetch(ui + "/graphql", {method: "POST", mode: "no-cors", credentials: "include",
    headers: {"Content-Type": "text/plain"}, body}).then(() => "answered", () => "no answer");
}
"""
CONNECT = """
ui => {
  const opened = new WebSocket(ui.replace("https", "wss") + "/graphql", "graphql-ws");
  return new Promise(told => {
    opened.onopen = () => told("open");
    opened.onerror = () => told("refused");
  });
}
"""
FRAME = """
ui => {
  const frame = document.createElement("iframe");
  frame.src = ui + "/login";
  return new Promise(told => { frame.onload = () => told("loaded"); document.body.append(frame); });
}
"""
RUNS = re.compile(r"/runs(/|$)")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with the real UI."""
    home = tmp_path_factory.mktemp("browser") / "home"
    with running_control_plane(home, "--no-daemon") as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser without a session."""
    with running_browser() as running:
        yield running


def errors_of(page: Page) -> list[str]:
    """Return what will hold the errors of the page's console."""
    errors: list[str] = []
    page.on("console", lambda each: errors.append(each.text) if each.type == "error" else None)
    return errors


def test_person_logs_in_and_out(plane: ControlPlane, page: Page) -> None:
    """By way of the page that was asked for; the UI works under both policies."""
    page.goto(f"{plane.ui}/runs")
    expect(page).to_have_url(f"{plane.ui}/login?next=%2Fruns")
    log_in(page, "user:self-hosted:wrong")
    expect(page.get_by_text("This is not a valid user token.")).to_be_visible()
    errors = errors_of(page)

    log_in(page, plane.user_token)

    expect(page).to_have_url(RUNS)
    expect(page.get_by_text("Deployment").first).to_be_visible()
    assert page.evaluate("document.cookie") == ""
    assert [line for line in errors if "Content Security" in line] == []
    assert page.evaluate(CONNECT, plane.ui) == "open"

    page.goto(f"{plane.ui}/logout")
    expect(page.get_by_text("agent, admin")).to_be_visible()
    page.locator("button").click()
    expect(page).to_have_url(f"{plane.ui}/login")
    page.goto(f"{plane.ui}/runs")
    expect(page).to_have_url(re.compile("/login"))


def test_hostile_page_on_the_same_machine_gets_nowhere(plane: ControlPlane, page: Page) -> None:
    """Another port of the same host is the same site to cookies: SameSite alone stops nothing."""
    page.goto(f"{plane.ui}/runs")
    log_in(page, plane.user_token)
    expect(page).to_have_url(RUNS)
    before = len(plane.cli("audit").splitlines())
    errors = errors_of(page)
    with hostile_page(plane) as hostile:
        page.goto(hostile)
        assert page.evaluate(ATTACK, plane.ui) == "no answer"
        assert page.evaluate(CONNECT, plane.ui) == "refused"
        page.evaluate(FRAME, plane.ui)
    assert [line for line in errors if "frame-ancestors" in line]
    assert len(plane.cli("audit").splitlines()) == before


@contextmanager
def hostile_page(plane: ControlPlane) -> Iterator[str]:
    """Serve an empty page on another port of this machine, by TLS: else cookies stay away."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<body>hello</body>")

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(plane.home / "tls" / "server.pem", plane.home / "tls" / "server.key")
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            serving.join()
