"""``hpc-agent status``: what an administrator sees who looks why things wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from sqlite_utils import Database
from typer.testing import CliRunner

from hpc_agent.agent.unreadable import Unreadable
from hpc_agent.cli import agent
from hpc_agent.slurm.scheduler import Look
from hpc_agent.store import node_faults
from hpc_agent.store.database import Store


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.yaml"
    content = {
        "control_plane": {"url": "https://cp.example"},
        "work_dir": str(tmp_path / "work"),
        "home": str(tmp_path / "home"),
        "scheduler": {"avoid_failing_nodes_minutes": 60},
    }
    path.write_text(yaml.safe_dump(content))
    written(tmp_path, lambda _: None)
    return path


def written(tmp_path: Path, work: Callable[[Database], object], *looks: Look) -> None:
    """Let a state database hold what an agent has written."""

    async def write() -> None:
        store = Store(tmp_path / "home")
        await store.open()
        await store.run(work)
        unreadable = Unreadable(store)
        for look in looks:
            await unreadable.note("squeue", look)
        await store.close()

    asyncio.run(write())


def status(config: Path, *arguments: str) -> str:
    app = typer.Typer()
    agent.register(app)
    given = ["status", "--config", str(config), *arguments]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def two_faults(db: Database) -> None:
    """Of one node now, and of another two hours ago."""
    now = time.time()
    for node, at in (("c1", now), ("c2", now - 7200)):
        for job in (3, 4):
            node_faults.note(db, node, f"job {job}: LAUNCH_FAILED", at)


def test_nodes_that_fail_jobs_are_shown_while_they_are_left_out(
    config: Path, tmp_path: Path
) -> None:
    """The node, until when, how often and why."""
    written(tmp_path, two_faults)
    (line,) = [line for line in status(config).splitlines() if "left out" in line]
    assert line.startswith("Node c1 is left out until 20")
    assert line.endswith("it ended 2 jobs in a row; the last one: job 4: LAUNCH_FAILED")
    (row,) = json.loads(status(config, "--json"))["avoided_nodes"]
    assert (row["node"], row["failures"]) == ("c1", 2)


def test_no_node_is_shown_where_none_is_left_out(config: Path, tmp_path: Path) -> None:
    """``avoid_failing_nodes_minutes: 0`` turns it off."""
    written(tmp_path, two_faults)
    content: dict[str, Any] = yaml.safe_load(config.read_text())
    content["scheduler"]["avoid_failing_nodes_minutes"] = 0
    config.write_text(yaml.safe_dump(content))
    assert "left out" not in status(config)


def test_what_slurms_commands_print_beside_records_is_shown(config: Path, tmp_path: Path) -> None:
    """As long as they print it; control characters do nothing to the terminal."""
    written(tmp_path, lambda _: None, Look(records=(), unreadable=("module \x1b[31mloaded",)))
    lines = status(config).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("squeue prints"))
    assert lines[at + 1] == r"  'module \x1b[31mloaded'"
    written(
        tmp_path,
        lambda _: None,
        Look(records=(), unreadable=("module loaded",)),
        Look(records=()),
    )
    assert "squeue prints" not in status(config)
