"""docs/metrics.md has the metrics of the code, and `hpc-agent metrics list` prints them."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from hpc_agent.cli.metrics import app
from hpc_agent.metrics import page

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_document_is_current() -> None:
    """`hpc-agent metrics list --markdown` makes its tables."""
    assert printed("list", "--markdown").strip() in DOCUMENT.read_text()


def test_list_is_for_people_and_for_programs() -> None:
    """One row for each metric."""
    assert json.loads(printed("list", "--json")) == page.rows()
    assert "hpc_agent_jobs" in printed("list")
