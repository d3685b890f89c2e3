"""A person with a browser logs in, sees the UI, and logs out; a hostile page gets nowhere."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.control_plane.door.browser import CHROMIUM, DRIVER, Browser, running_browser
from tests.control_plane.running import ControlPlane, poll, running_control_plane

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no Chromium with its driver here: apt-get install chromium chromium-driver",
    ),
]
# What a page can do without anybody's leave: post a form's types, connect, and frame.
ATTACK = """
const ui = arguments[0];
const body = JSON.stringify({query: "mutation { reloadWorkspace { __typename } }"});
return fetch(ui + "/graphql", {method: "POST", mode: "no-cors", credentials: "include",
  headers: {"Content-Type": "text/plain"}, body}).then(() => "answered", () => "no answer");
"""
CONNECT = """
const url = arguments[0].replace("https", "wss") + "/graphql";
return new Promise(told => {
  const opened = new WebSocket(url, "graphql-ws");
  opened.onopen = () => told("open");
  opened.onerror = () => told("refused");
});
"""
FRAME = """
const frame = document.createElement("iframe");
frame.src = arguments[0] + "/login";
return new Promise(told => { frame.onload = () => told("loaded"); document.body.append(frame); });
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with the real UI."""
    home = tmp_path_factory.mktemp("browser") / "home"
    with running_control_plane(home, "--no-daemon") as running:
        yield running


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser without a session."""
    with running_browser(tmp_path) as running:
        yield running


def log_in(browser: Browser, token: str) -> None:
    browser.type("input[name=token]", token)
    browser.click("button")


def test_person_logs_in_and_out(plane: ControlPlane, browser: Browser) -> None:
    """By way of the page that was asked for; the UI works under both policies."""
    browser.open(f"{plane.ui}/runs")
    assert browser.path == "/login?next=%2Fruns"
    log_in(browser, "user:self-hosted:wrong")
    browser.wait_for("This is not a valid user token.")
    browser.console()

    log_in(browser, plane.user_token)

    poll(lambda: browser.path.startswith("/runs"), "the page that was asked for", 60)
    browser.wait_for("Deployment")
    assert browser.run("return document.cookie") == ""
    assert [line for line in browser.console() if "Content Security" in line] == []
    assert browser.run(CONNECT, plane.ui) == "open"

    browser.open(f"{plane.ui}/logout")
    browser.wait_for("agent, admin")
    browser.click("button")
    poll(lambda: browser.path == "/login", "the login page", 60)
    browser.open(f"{plane.ui}/runs")
    assert browser.path.startswith("/login")


def test_hostile_page_on_the_same_machine_gets_nowhere(
    plane: ControlPlane, browser: Browser
) -> None:
    """Another port of the same host is the same site to cookies: SameSite alone stops nothing."""
    browser.open(f"{plane.ui}/runs")
    log_in(browser, plane.user_token)
    poll(lambda: browser.path.startswith("/runs"), "the UI", 60)
    before = len(plane.cli("audit").splitlines())
    with hostile_page(plane) as page:
        browser.open(page)
        posted, connected = browser.run(ATTACK, plane.ui), browser.run(CONNECT, plane.ui)
        browser.run(FRAME, plane.ui)
        framed = [line for line in browser.console() if "frame-ancestors" in line]
    assert (posted, connected) == ("no answer", "refused")
    assert framed
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
