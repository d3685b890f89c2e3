"""Errors, messages, variables: what a page quotes can be said, and what can be said has a row."""

from __future__ import annotations

import ast
import re

from tests.manual.messages import GAP, arguments_of, can_be_said, trees, variables
from tests.manual.pages import ROOT

DOCS = ROOT / "docs"
_ROW = re.compile(r"^\| (.+?) \|", re.M)
_CODE = re.compile(r"`` (.+?) ``|`([^`]+)`")
# Of the demo and of what ends with a job: nobody sets them.
INTERNAL = frozenset({"HPC_AGENT_DEMO_DATA", "HPC_AGENT_LOCAL_JOB", "LANG", "SLURMD_NODENAME"})


def first_cells(page: str) -> list[str]:
    """Return the first cell of each row of all tables of a page."""
    return _ROW.findall((DOCS / page).read_text())


def quoted(page: str) -> list[str]:
    """Return the messages in first cells: whatever is in backticks and has blanks."""
    spans = [a or b for cell in first_cells(page) for a, b in _CODE.findall(cell)]
    return [span for span in spans if " " in span and not span.startswith("hpc-agent ")]


def every_error() -> set[str]:
    """Return the names of all classes below HpcAgentError, as they are defined."""
    parents = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"HpcAgentError"}
    while new := {name for name, of in parents.items() if of & found} - found:
        found |= new
    return found


def test_page_of_errors_has_every_class() -> None:
    """And none that is gone."""
    rows = {cell.strip("`") for cell in first_cells("errors.md")} - {"class", "---"}
    public = {name for name in every_error() if not name.startswith("_")} - {"HpcAgentError"}
    assert rows == public


def test_messages_that_troubleshooting_quotes_can_be_said() -> None:
    """Who searches the page for what is on the screen finds it."""
    messages = quoted("troubleshooting.md")
    assert len(messages) > 30
    assert [message for message in messages if not can_be_said(message)] == []


def test_lines_of_a_runs_log_are_those_of_the_code() -> None:
    """Each quoted line can be said, and each line that is said has its row."""
    lines = quoted("run-log.md")
    assert [line for line in lines if not can_be_said(line)] == []
    rows = [re.compile(".*".join(map(re.escape, line.split(GAP)))) for line in lines]
    said = [text for text in arguments_of("say_line") if text.strip(GAP)]
    assert [text for text in said if not any(row.search(text) for row in rows)] == []


def test_page_of_variables_has_all_that_are_read() -> None:
    """Those of Slurm that a job finds are Slurm's."""
    page = (DOCS / "environment-variables.md").read_text()
    missing = {name for name in set(variables()) - INTERNAL if f"`{name}`" not in page}
    assert {name for name in missing if not name.startswith("SLURM_")} == set()
