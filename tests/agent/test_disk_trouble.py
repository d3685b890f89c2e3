"""Waiting is not failing: while the work directory cannot be used, nothing is refused or lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.agent.watch import WatchLoop
from hpc_agent.dagster_plus import requests
from hpc_agent.store import outbox
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench
from tests.agent.test_serve import RUN, Server, harbour_of
from tests.disks import Disk, mounted_disk

SUBMITTED: dict[str, Any] = {"phase": Phase.QUEUED, "submitted_at": 1000.0}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The disk that job directories are on."""
    with mounted_disk(tmp_path / "work" / "jobs") as mounted:
        yield mounted


@pytest.fixture
async def server(disk: Disk, bench: Bench) -> AsyncIterator[Server]:
    harbour = harbour_of(bench)
    yield Server(bench, harbour)
    await harbour.channels.close()


async def waits(server: Server) -> None:
    """Let a launch come in, and see that its run says what it waits for."""
    await server.put(requests.LAUNCH_RUN, {"pipeline_run": RUN})
    await server.loop.step()
    while not (events := await server.bench.messages(outbox.EVENT)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert "The launch of the run waits" in events[0]
    assert await server.bench.messages(outbox.RESPONSE) == []
    assert await server.job() is None


async def test_launch_waits_while_the_disk_is_full(disk: Disk, server: Server) -> None:
    """It is answered when its job is submitted; nothing has failed meanwhile."""
    disk.fill()
    await waits(server)
    disk.free()
    await server.tasks.finish()
    job = await server.job()
    assert job is not None
    assert job.phase is Phase.INTENT
    script = server.bench.context.preparation.work.script_of(job.key)
    assert script.read_text().startswith("#!")


async def test_launch_waits_while_the_disk_is_read_only(disk: Disk, server: Server) -> None:
    """The same."""
    disk.make_read_only()
    try:
        await waits(server)
    finally:
        disk.make_writable()
    await server.tasks.finish()
    assert await server.job() is not None


async def test_job_is_not_lost_while_its_exit_record_cannot_be_read(bench: Bench) -> None:
    """Absent from everywhere, and from a directory that is not there: that teaches nothing."""
    await bench.add(job_id="7", **SUBMITTED)
    work = bench.context.preparation.work
    work.of("run-1").mkdir()
    (work.of("run-1") / "exit.json").write_text(json.dumps({"outcome": "exited", "exit_code": 0}))
    away = work.path / "away"
    work.jobs.rename(away)
    watch = WatchLoop(bench.context)
    for _ in range(3):
        await watch.step()
        bench.clock.now += 10_000
    assert (await bench.job()).phase is Phase.QUEUED
    away.rename(work.jobs)
    await watch.step()
    assert (await bench.job()).exit_code == 0


@pytest.mark.parametrize(
    "content",
    [
        r'{"outcome": "exited", "exit_code": 1, "stderr_tail": "\ud800", "hostname": "\udfff"}',
        '{"outcome": "exited", "exit_code": 1, "max_rss_kb": 1' + "0" * 100 + "}",
        '{"outcome": "exited", "exit_code": 1, "ended_at": 1e999}',
        "[" * 100_000,
    ],
)
async def test_record_of_one_job_does_not_stop_the_watching_of_others(
    bench: Bench, content: str
) -> None:
    """Whatever user code wrote into it."""
    work = bench.context.preparation.work
    for number in range(3):
        key = f"run-{number}"
        await bench.add(key, job_id=str(number), **SUBMITTED)
        work.of(key).mkdir()
        said = content if number == 1 else '{"outcome": "exited", "exit_code": 0}'
        (work.of(key) / "exit.json").write_text(said)
    await WatchLoop(bench.context).step()
    assert [(await bench.job(f"run-{number}")).exit_code for number in (0, 2)] == [0, 0]
