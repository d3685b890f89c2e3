"""A real browser: Chromium, driven by its own chromedriver over W3C WebDriver."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.control_plane.running import poll

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's reference (W3C WebDriver, section 12.1)."""


class Browser:
    """One browser with its own profile."""

    def __init__(self, session: httpx.Client) -> None:
        self._session = session

    def open(self, url: str) -> None:
        self._call("url", url=url)

    @property
    def path(self) -> str:
        return str(self.run("return location.pathname + location.search"))

    @property
    def text(self) -> str:
        return str(self.run("return document.body ? document.body.innerText : ''"))

    def type(self, selector: str, text: str) -> None:
        self._call(f"element/{self._find(selector)}/value", text=text)

    def click(self, selector: str) -> None:
        self._call(f"element/{self._find(selector)}/click")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function's body in the page; a promise that it returns is waited for."""
        return self._call("execute/sync", script=script, args=list(arguments))

    def wait_for(self, text: str) -> None:
        poll(lambda: text in self.text, f"{text!r} in the page", 60)

    def console(self) -> list[str]:
        """Return the errors since the last call."""
        entries = self._call("se/log", type="browser")
        return [each["message"] for each in entries if each["level"] == "SEVERE"]

    def _find(self, selector: str) -> str:
        found = self._call("element", using="css selector", value=selector)
        return str(found[ELEMENT])

    def _call(self, command: str, **parameters: Any) -> Any:
        answer = self._session.post(command, json=parameters)
        assert answer.is_success, answer.text
        return answer.json()["value"]


@contextlib.contextmanager
def running_browser(directory: Path) -> Iterator[Browser]:
    """Start a browser that takes any certificate, and end it."""
    assert DRIVER is not None
    arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage",
                 f"--user-data-dir={directory / 'profile'}"]  # fmt: skip
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # which Chromium refuses to have as root
    wanted = {
        "acceptInsecureCerts": True,
        "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
        "goog:loggingPrefs": {"browser": "ALL"},
    }
    log = directory / "chromedriver.log"
    argv = [DRIVER, "--port=0", f"--log-path={log}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as driver:
        try:
            url = f"http://127.0.0.1:{_port(driver)}"
            with httpx.Client(timeout=90, trust_env=False) as client:
                answer = client.post(
                    f"{url}/session", json={"capabilities": {"alwaysMatch": wanted}}
                )
                assert answer.is_success, answer.text
                session = f"{url}/session/{answer.json()['value']['sessionId']}"
                client.base_url = httpx.URL(session)
                try:
                    yield Browser(client)
                finally:
                    client.delete(session)
        finally:
            driver.terminate()


def _port(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        if "started successfully on port" in line:
            return int(line.rpartition("port ")[2].rstrip(".\n"))
    raise AssertionError("chromedriver does not start")
