"""Each row of the threat model has a test, and each test a defence that it would miss."""

from __future__ import annotations

import ast
import re

import pytest

from hpc_agent.control_plane.store import agents, idempotency, requests
from hpc_agent.store import inbox, workers
from tests.security.defences import ROOT, Defence, defences

PAGE = ROOT / "docs" / "security.md"
ROW = re.compile(
    r"^\| (?P<who>[^|]+) \| (?P<what>[^|]+) \| (?P<how>[^|]+) \| (?P<tests>`tests/[^|]+) \|$"
)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[str]:
    """The rows of the threat model, each as its cell with tests."""
    lines = PAGE.read_text().partition("## Threat model")[2].partition("\n## ")[0].splitlines()
    table = [line for line in lines if line.startswith("| ")][1:]
    assert table
    matches = [ROW.match(line) for line in table]
    assert all(matches), [line for line, match in zip(table, matches, strict=True) if not match]
    return [match["tests"] for match in matches if match]


def test_each_row_names_tests_that_exist() -> None:
    """A defence without a test is a wish."""
    for cell in rows():
        named = TEST.findall(cell)
        assert named, cell
        for file, function in named:
            tree = ast.parse((ROOT / file).read_text())
            functions = {
                node.name
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            assert function in functions, f"{file}::{function}"


@pytest.mark.parametrize("defence", defences(), ids=lambda each: each.name)
def test_defence_can_be_switched_off(defence: Defence) -> None:
    """`make defences` would try what is there; its test is in the threat model."""
    assert (ROOT / defence.file).read_text().count(defence.old) == 1
    file, _, function = defence.test.partition("::")
    assert (file, function) in TEST.findall(" ".join(rows()))


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        ("workers, their jobs and history", workers.KEEP_CONCLUDED_SECONDS),
        ("requests of the control plane", inbox.KEEP_ANSWERED_SECONDS),
        ("requests and answers of agents", requests.ANSWERED_KEPT_SECONDS),
        ("keys of calls that were carried out", idempotency.KEPT_SECONDS),
        ("agents that were seen", agents.FORGOTTEN_AFTER_SECONDS),
    ],
)
def test_page_says_how_long_things_are_kept(what: str, seconds: float) -> None:
    """As the code has it."""
    (row,) = re.findall(rf"^\| {re.escape(what)} \|.*\|$", PAGE.read_text(), re.MULTILINE)
    days = re.search(r"(\d+) days?", row)
    assert days is not None
    assert int(days[1]) * 86400 == seconds
