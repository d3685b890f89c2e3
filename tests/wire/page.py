"""docs/wire-comparison.md: what was compared, how it came out, and what was set aside."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from tests.wire.messages import Messages
from tests.wire.normalization import NORMALIZATIONS

PAGE = Path(__file__).parents[2] / "docs" / "wire-comparison.md"
_ROW = re.compile(r"^\| (.+?) \| (?:equal|differs) \|$", re.MULTILINE)

_HEAD = """# What the agent sends, compared with the stock agent

Written by `tests/wire`: do not edit. The stock agent (`dagster-cloud agent run` of dagster-cloud
{version}, process launcher) and ours (`scheduler: {{kind: local}}`) did the same work one after the
other, each in front of a fresh control plane of ours: load a code location, answer every kind of
request, launch a run, end another one by request, send heartbeats. A recording gateway in between
kept what they sent. Each message was read with the stock type that belongs to it, which may
neither add nor drop anything, and compared after the normalizations below. GraphQL documents are
compared as parsed, with their variables and their scope.

| message | outcome |
|---|---|
"""
_MIDDLE = """
## What may differ

Nothing else does.

| what | why |
|---|---|
"""


def render(stock: Messages, ours: Messages) -> str:
    """Return the page."""
    rows = [
        f"| {name} | {'equal' if stock.get(name) == ours.get(name) else 'differs'} |"
        for name in sorted(stock.keys() | ours.keys())
    ]
    allowed = [f"| {each.what} | {each.why} |" for each in NORMALIZATIONS]
    head = _HEAD.format(version=version("dagster-cloud"))
    return head + "\n".join(rows) + "\n" + _MIDDLE + "\n".join(allowed) + "\n"


def rows_of(page: str) -> set[str]:
    """Return the names of the compared messages on a page."""
    return set(_ROW.findall(page))
