"""The store of an agent with a few jobs, for commands that show them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlite_utils import Database

from hpc_agent.config import load_config
from hpc_agent.slurm.state import JobState
from hpc_agent.store import commands, inbox
from hpc_agent.store.commands import Command, CommandKind
from hpc_agent.store.database import Store
from hpc_agent.store.inbox import Request
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.workers import a_worker, put

NOW = time.time()
RUN = "0a1b2c3d-0000-4000-8000-00000000000"
TRACEBACK = "exit code 1\n" + "\n".join(f"line {number}" for number in range(100))
BODY = {
    "__class__": "DagsterCloudApiRequest",
    "request_args": {
        "pipeline_run": {
            "run_id": f"{RUN}1",
            "external_pipeline_origin": {
                "external_repository_origin": {
                    "repository_location_origin": {"location_name": "alpha"}
                }
            },
        }
    },
}


def filled(db: Database) -> None:
    """Three runs of two locations, one of them with two attempts, and a code server."""
    for number, location, phase, state, partition in (
        (1, "alpha", Phase.QUEUED, JobState.PENDING, "batch"),
        (2, "alpha", Phase.RUNNING, JobState.RUNNING, "gpu"),
        (3, "beta", Phase.ENDED, JobState.FAILED, "batch"),
    ):
        put(
            db,
            a_worker(
                key=f"run-{number}",
                kind=WorkerKind.RUN_WORKER,
                phase=phase,
                deployment="prod",
                location=location,
                run_id=f"{RUN}{number}",
                job_name=f"job_{number}",
                created_at=NOW - 7200 * number,
                started_at=None if phase is Phase.QUEUED else NOW - 600 * number,
                ended_at=NOW - 60 if phase is Phase.ENDED else None,
                message=TRACEBACK if phase is Phase.ENDED else "",
                job_id=str(100 + number),
                state=state,
                partition=partition,
                nodes="" if phase is Phase.QUEUED else f"c{number}",
            ),
        )
    put(
        db,
        a_worker(
            key="run-1-again",
            kind=WorkerKind.RUN_WORKER,
            phase=Phase.INTENT,
            deployment="prod",
            location="alpha",
            run_id=f"{RUN}1",
            attempt=2,
            created_at=NOW,
            waits_for="node c1 failed",
        ),
    )
    put(
        db,
        a_worker(
            key="server",
            kind=WorkerKind.CODE_SERVER,
            phase=Phase.RUNNING,
            deployment="prod",
            location="[red]\x1b[31mgamma",
            created_at=NOW - 90000,
            started_at=NOW - 90000,
            job_id="99",
            state=JobState.RUNNING,
        ),
    )
    inbox.receive(db, [Request("r-1", "LAUNCH_RUN", json.dumps(BODY), "prod", False, NOW - 120)])
    inbox.receive(db, [Request("r-2", "PING_LOCATION", "no JSON", "prod", False, NOW - 60)])
    inbox.mark_answered(db, "r-2", NOW)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The agent.yaml of this store."""
    path = tmp_path / "agent.yaml"
    content = {
        "control_plane": {"url": "https://cp.example"},
        "work_dir": str(tmp_path / "work"),
        "home": str(tmp_path / "home"),
    }
    path.write_text(yaml.safe_dump(content))
    (tmp_path / "work").mkdir()
    asyncio.run(written(path, filled))
    return path


async def written(config: Path, work: Callable[[Database], None]) -> None:
    """Change the store as a running agent does."""
    store = Store(load_config(config, environ={}).home)
    await store.open()
    try:
        await store.run(work)
    finally:
        await store.close()


async def answered(config: Path, words: str) -> tuple[CommandKind, dict[str, Any]]:
    """Take the next command as an agent does, and answer it."""
    given: list[Command] = []

    def answer(db: Database) -> None:
        if (each := commands.begin(db, time.time())) is not None:
            commands.conclude(db, each.id, words, failed=False)
            given.append(each)

    async with asyncio.timeout(60):
        while not given:
            await written(config, answer)
    (only,) = given
    return only.kind, dict(only.subject)
