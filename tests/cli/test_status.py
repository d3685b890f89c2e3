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

from hpc_agent.agent.troubles import Troubles
from hpc_agent.agent.unreadable import Unreadable
from hpc_agent.cli import agent
from hpc_agent.dagster_plus.serdes import dumps, error_info
from hpc_agent.slurm.scheduler import Look
from hpc_agent.slurm.state import JobState
from hpc_agent.store import code_servers, meta, node_faults
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.workers import a_worker, put


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


def broken_server(db: Database) -> None:
    """A location whose code does not import, and another one that serves."""
    cause = error_info("ModuleNotFoundError: No module named 'pandas'\n")
    error = {**error_info("Error loading location\n"), "cause": cause}
    for location, status, found in (
        ("broken", ServerStatus.FAILED, dumps(error)),
        ("good", ServerStatus.SERVING, None),
    ):
        put(
            db,
            a_worker(
                key=location,
                kind=WorkerKind.CODE_SERVER,
                phase=Phase.RUNNING,
                deployment="prod",
                location=location,
                created_at=1.0,
                job_id="7",
                state=JobState.RUNNING,
                nodes="c1",
            ),
        )
        server = CodeServer(
            key=location,
            deployment="prod",
            location=location,
            version="1.0",
            deploy_data="{}",
            status=status,
            error=found,
            created_at=1.0,
        )
        code_servers.insert(db, server)


def test_location_that_does_not_load_says_why(config: Path, tmp_path: Path) -> None:
    """Its import error in one line, and whole for scripts; the others say where they run."""
    written(tmp_path, broken_server)
    rows = {line.split()[1]: line for line in status(config).splitlines() if "prod" in line}
    assert "failed" in rows["broken"]
    assert "ModuleNotFoundError: No module named 'pandas'" in rows["broken"]
    assert rows["good"].endswith("job 7, RUNNING on c1")
    servers = json.loads(status(config, "--json"))["code_servers"]
    assert servers[0]["error"].splitlines()[-1] == "Error loading location"


def with_troubles(db: Database) -> None:
    """As the agent writes it down each quarter of a minute."""
    meta.take_lease(db, "test", time.time())
    troubles = Troubles(lambda: 0.0)
    troubles.note("poll", "cannot reach https://cp.example: refused")
    troubles.note("submit", "sbatch: no answer")
    troubles.works("submit")
    errors = [{"at": 60.0, "message": "PING_LOCATION: no such location\nmore"}]
    found = {"now": troubles.rows(), "errors": errors}
    meta.put(db, meta.TROUBLES, json.dumps(found))


def test_what_the_agent_cannot_do_is_shown(config: Path, tmp_path: Path) -> None:
    """As long as it runs and cannot; its last errors too, a line each."""
    written(tmp_path, with_troubles)
    lines = status(config).splitlines()
    assert "Since 1970-01-01 00:00 UTC, poll: cannot reach https://cp.example: refused" in lines
    assert not any("sbatch" in line for line in lines)
    assert "  1970-01-01 00:01 UTC PING_LOCATION: no such location" in lines
    written(tmp_path, lambda db: meta.release_lease(db, "test"))
    assert "poll:" not in status(config)


def test_work_directory_that_is_not_there_is_told(config: Path, tmp_path: Path) -> None:
    """Not mounted, or never made."""
    line = f"The file system of work_dir does not answer, or is not there: {tmp_path / 'work'}"
    assert line in status(config)
    (tmp_path / "work").mkdir()
    assert line not in status(config)
