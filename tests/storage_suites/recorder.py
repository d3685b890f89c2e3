"""A plugin of pytest that writes down what became of each test."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

OUTCOMES_VARIABLE = "STORAGE_SUITES_OUTCOMES"

_outcomes: dict[str, list[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the first thing that went wrong, else what the call itself came to."""
    name = report.nodeid.partition("::")[2]
    if report.failed and _outcomes.get(name, ["passed"])[0] != "failed":
        _outcomes[name] = ["failed", report.longreprtext]
    elif report.skipped:
        _outcomes[name] = ["skipped", _reason(report)]
    elif report.when == "call":
        _outcomes.setdefault(name, ["passed", ""])


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""


def pytest_sessionfinish() -> None:
    """Write them where whoever runs this looks for them."""
    Path(os.environ[OUTCOMES_VARIABLE]).write_text(json.dumps(_outcomes))
