"""``hpc-agent report``: what runs have waited for, used and failed of."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlite_utils import Database
from typer.testing import CliRunner

from hpc_agent.cli import app
from hpc_agent.errors import UsageError
from hpc_agent.runs.efficiency import Efficiency
from hpc_agent.slurm.state import JobState
from hpc_agent.store import job_usage
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.workers import a_worker, put

NOW = time.time()
DAY = 86400.0
HOUR = Efficiency(
    elapsed=3600.0,
    queue_wait=60.0,
    source="sacct",
    cpus=2,
    cpu_seconds=3600.0,
    memory=1 << 30,
    memory_used=1 << 29,
    nodes=2,
    billing=4,
)
SHORT = Efficiency(elapsed=36.0, queue_wait=600.0, source="exit record", cpus=1, cpu_seconds=36.0)


def filled(db: Database) -> None:
    """Four jobs: an hour, a short one, one that failed and was not measured, and an old one."""
    for key, location, ended, state, used, assets in (
        ("hour", "alpha", NOW - 2 * DAY, JobState.COMPLETED, HOUR, ["raw", "clean/<b>"]),
        ("short", "alpha", NOW - DAY, JobState.CANCELLED, SHORT, []),
        ("failed", "beta", NOW - DAY, JobState.OUT_OF_MEMORY, None, []),
        ("old", "beta", NOW - 90 * DAY, JobState.COMPLETED, HOUR, []),
    ):
        put(
            db,
            a_worker(
                key=key,
                kind=WorkerKind.RUN_WORKER,
                phase=Phase.ENDED,
                deployment="prod",
                location=location,
                run_id=key,
                job_name="j",
                created_at=ended - 5000,
                started_at=ended - 3600,
                ended_at=ended,
                job_id="7",
                state=state,
            ),
        )
        if used is not None:
            job_usage.keep(db, key, asdict(used), assets)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.yaml"
    home = tmp_path / "home"
    content = {
        "control_plane": {"url": "https://cp.example"},
        "work_dir": str(tmp_path / "work"),
        "home": str(home),
    }
    path.write_text(yaml.safe_dump(content))

    async def write() -> None:
        store = Store(home)
        await store.open()
        await store.run(filled)
        await store.close()

    asyncio.run(write())
    return path


def said(config: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["report", "--config", str(config), *arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_jobs_are_summed_up(config: Path) -> None:
    """What was not measured is counted, and adds nothing; an hour weighs more than a minute."""
    found: dict[str, Any] = json.loads(said(config, "--json"))
    total = found["total"]
    assert (total["jobs"], total["failed"], found["failures"]) == (3, 1, {"OUT_OF_MEMORY": 1})
    assert total["node_hours"] == pytest.approx(2.0)
    assert total["billing_hours"] == pytest.approx(4.0)
    assert total["cpu_efficiency"] == pytest.approx((0.5 * 3600 + 36) / 3636)
    assert total["wait_median"] == pytest.approx(330.0)
    assert [each["name"] for each in found["by_location"]] == ["alpha", "beta"]
    assert {each["name"]: each["jobs"] for each in found["by_asset"]} == {"raw": 1, "clean/<b>": 1}
    assert [each["jobs"] for each in found["by_day"]] == [1, 2]
    beta = found["by_location"][1]
    unknown = ("wait_median", "cpu_efficiency", "billing_hours", "node_hours")
    assert [beta[name] for name in unknown] == [None] * 4


def test_time_of_the_report_is_chosen(config: Path) -> None:
    """Back to the old job, or to nothing at all."""
    assert json.loads(said(config, "--since", "100d", "--json"))["total"]["jobs"] == 4
    nothing = json.loads(said(config, "--since", "1h", "--json"))
    assert (nothing["total"]["jobs"], nothing["by_day"]) == (0, [])
    assert "0" in said(config, "--since", "1h")


def test_report_is_readable_in_a_terminal(config: Path) -> None:
    """Tables, one after the other."""
    text = said(config)
    assert "By code location" in text
    assert "Failures: 1 OUT_OF_MEMORY" in text


def test_page_needs_nothing_else(config: Path) -> None:
    """No script, nothing that is loaded; names of assets are text."""
    path = config.parent / "report.html"
    assert said(config, "--html", str(path)).strip() == str(path)
    page = path.read_text()
    assert page.count("<svg") == 4
    assert "clean/&lt;b&gt;" in page
    assert not re.search(r"<script|<link|<img|src=|@import|url\(http", page)
    with pytest.raises(UsageError, match="--html: /nowhere/x: No such file"):
        said(config, "--html", "/nowhere/x")
