"""Servers in a pack, from their own end to what the agent makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpc_agent.agent.conclude import ConcludeLoop
from hpc_agent.agent.watch import WatchLoop
from hpc_agent.jobs.directory import ORDERS
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store.code_servers import ServerStatus
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench
from tests.code_servers.conftest import Harbour, deployment, entry, make_harbour

PACKED = [{"code_servers": {"placement": "packed"}}]
NO_MODULE = "module: command not found\nits script ended with status 3"


async def crashed_server(bench: Bench) -> tuple[Harbour, str, str]:
    """Let a server crash in a running pack; return the keys of both."""
    context = bench.context
    harbour = make_harbour(context.config, context.store, bench.clock, context.preparation)
    await harbour.reconcile(deployment("prod", entry("a")))
    (server,) = await harbour.servers()
    pack = str((await bench.job(server.key)).pack_key)
    await harbour.let_run(pack, started_at=bench.clock.now)
    bench.scheduler.queued = [
        JobRecord(
            job_id="17",
            name=f"hpc-agent:{pack}",
            state=JobState.RUNNING,
            nodes="c1",
            source="squeue",
        )
    ]
    record: dict[str, Any] = {
        "key": server.key,
        "outcome": "exited",
        "exit_code": 3,
        "stderr_tail": NO_MODULE,
    }
    (context.preparation.work.of(server.key) / "exit.json").write_text(json.dumps(record))
    return harbour, server.key, pack


async def conclude(bench: Bench, harbour: Harbour) -> None:
    """Let the last word be said."""
    loop = ConcludeLoop(bench.context, harbour.life, spooled=lambda _: False, revoke=lambda _: None)
    await loop.step()


@pytest.mark.parametrize("settings", PACKED)
async def test_server_that_could_not_tell_its_end_fails_with_the_words_of_its_script(
    bench: Bench,
) -> None:
    """Its pack has noted it, and goes on."""
    harbour, key, pack = await crashed_server(bench)
    assert (await bench.job(key)).phase is Phase.RUNNING
    await WatchLoop(bench.context).step()
    worker = await bench.job(key)
    assert (worker.phase, worker.exit_code, worker.message) == (Phase.ENDED, 3, NO_MODULE)
    await conclude(bench, harbour)
    (server,) = await harbour.servers()
    assert server.status is ServerStatus.FAILED
    assert "module: command not found" in str(server.error)
    assert (await bench.job(pack)).phase is Phase.RUNNING


@pytest.mark.parametrize("settings", PACKED)
async def test_order_of_a_server_that_has_crashed_is_taken_back(bench: Bench) -> None:
    """Its pack would have it for ever."""
    harbour, key, pack = await crashed_server(bench)
    order = bench.context.preparation.work.of(pack) / ORDERS / key
    assert order.exists()
    await WatchLoop(bench.context).step()
    await conclude(bench, harbour)
    assert not order.exists()
    assert (await bench.job(pack)).phase is Phase.RUNNING
