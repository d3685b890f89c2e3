"""``hpc-agent docs``: the manual where there is no browser."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpc_agent.cli import app
from hpc_agent.errors import UsageError


def printed(*arguments: str) -> str:
    """Return what the command prints into a pipe."""
    done = CliRunner().invoke(app, ["docs", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_list_has_written_pages_and_those_made_from_the_code() -> None:
    """By name and title; names are what the command takes."""
    rows = {row["page"]: row["title"] for row in json.loads(printed("--list", "--json"))}
    assert rows["options"] == "Slurm options, site policy, environments, templates"
    assert rows["adr/0007-workers-and-jobs"]
    assert rows["reference/agent-yaml"] == "The keys of agent.yaml"


def test_page_is_found_by_the_last_part_of_its_name() -> None:
    """As well as by its whole name, and by its path in the repository."""
    whole = printed("reference/agent-yaml")
    assert printed("agent-yaml") == whole
    assert printed("docs/options.md").startswith("# Slurm options")


def test_what_only_the_site_understands_is_left_out() -> None:
    """The first page is a map, without the lists for the site's margin."""
    assert "{toctree}" not in printed()
    assert printed().startswith("# hpc-agent")


def test_unknown_page_is_an_error_with_a_hint() -> None:
    """And says how to find the right one."""
    with pytest.raises(UsageError, match=r"no page 'option'; did you mean options\?.*docs --list"):
        CliRunner().invoke(app, ["docs", "option"], catch_exceptions=False)


def test_on_a_terminal_it_is_rendered_and_goes_through_the_pager(tmp_path: Path) -> None:
    """The user's own pager gets plain text, and headings are no hash signs any more."""
    seen = tmp_path / "seen"
    terminal, other_end = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hpc_agent", "docs", "tags"],
            stdin=other_end,
            stdout=other_end,
            stderr=subprocess.PIPE,
            env={**os.environ, "PAGER": f"cat > '{seen}'", "TERM": "xterm", "COLUMNS": "80"},
            timeout=60,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(other_end)
    assert done.returncode == 0, done.stderr
    text = seen.read_text()
    assert "dagster-hpc/partition" in text
    assert "\x1b" not in text
    assert "## " not in text
