"""A real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect, sync_playwright

_CHROMIUM = shutil.which("chromium")
_PATIENCE_MS = 60_000

needs_browser = pytest.mark.skipif(
    _CHROMIUM is None, reason="no Chromium here: apt-get install chromium"
)


@contextmanager
def running_browser() -> Iterator[Page]:
    """Start a browser that takes any certificate, with a page of 1280 by 800, and end it."""
    expect.set_options(timeout=_PATIENCE_MS)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=_CHROMIUM,
            chromium_sandbox=os.geteuid() != 0,  # which Chromium refuses to have as root
            args=["--disable-gpu", "--disable-dev-shm-usage"],
        ) as browser,
        browser.new_context(
            ignore_https_errors=True, viewport={"width": 1280, "height": 800}
        ) as context,
    ):
        context.set_default_timeout(_PATIENCE_MS)
        yield context.new_page()


def log_in(page: Page, token: str) -> None:
    """Fill in the login page."""
    page.locator("input[name=token]").fill(token)
    page.locator("button").click()
