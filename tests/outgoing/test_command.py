"""``hpc-agent outgoing``, beside an agent that runs and without one."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hpc_agent.cli import app
from hpc_agent.doorbell import answered
from hpc_agent.errors import HpcAgentError, StoreError
from hpc_agent.outgoing.queue import Counts
from hpc_agent.store.database import Store
from tests.outgoing.sides import OutboxSide, Side, SpoolSide, change, stored
from tests.relay.fake_control_plane import FakeControlPlane, Received, Reply


@pytest.fixture
async def config(side: Side, tmp_path: Path) -> Path:
    """Return the agent.yaml of an agent that has run once."""
    path = tmp_path / "agent.yaml"
    settings = {
        "control_plane": {"url": "https://cp.example"},
        "work_dir": str(tmp_path / "work"),
        "home": str(tmp_path),
    }
    path.write_text(yaml.safe_dump(settings))
    if isinstance(side, SpoolSide):
        store = Store(tmp_path)
        await store.open()
        await store.close()
    return path


async def run(config: Path, *arguments: str, exit_code: int = 0) -> str:
    """Run the command in a thread, since an agent runs here at the same time."""
    command = [*arguments[:1], "--config", str(config), *arguments[1:]]
    result = await asyncio.to_thread(
        CliRunner().invoke, app, command, catch_exceptions=exit_code == 0
    )
    assert result.exit_code == exit_code, result.output
    return result.output


async def listed(config: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(await run(config, "outgoing", "--json"))
    return rows


def refuse_first(received: Received) -> Reply | None:
    return Reply(status=422, content=b"no such run") if "-0" in str(received.headers) else None


async def refused(side: Side, control_plane: FakeControlPlane, config: Path) -> str:
    """Let one message be set aside, one go, and one wait; return the id of the first."""
    control_plane.script = refuse_first
    await side.put("run:a", 0)
    await side.put("run:a", 1)
    await side.drain.until_idle()
    control_plane.script = lambda _received: Reply(status=503, content=b"closed")
    await side.put("run:a", 2)
    await side.drain.until_idle()
    (found,) = [row["id"] for row in await listed(config) if row["state"] == "set aside"]
    return str(found)


async def test_lists_what_waits_and_what_is_set_aside(
    side: Side, control_plane: FakeControlPlane, config: Path
) -> None:
    """With run, age, size and reason."""
    await refused(side, control_plane, config)
    first, second = await listed(config)
    assert re.fullmatch(r"(outbox|spool):\d+", first["id"])
    assert (first["state"], second["state"]) == ("set aside", "waiting")
    assert first["reason"] == "HTTP 422: no such run"
    assert first["run"] == ("a" if isinstance(side, OutboxSide) else "run:a")
    assert first["size"] > 10
    assert first["age_seconds"] > 0
    assert "no such run" in await run(config, "outgoing")


@pytest.mark.parametrize("which", ["id", "--all"])
async def test_a_running_agent_sends_again_what_is_retried(
    side: Side, control_plane: FakeControlPlane, config: Path, which: str
) -> None:
    """Within seconds, and before what came later in its stream."""
    found = await refused(side, control_plane, config)
    control_plane.script = None
    assert "1 to be sent" in await run(
        config, "outgoing", "retry", found if which == "id" else which
    )
    running = asyncio.create_task(side.drain.run())
    async with answered(side.home, side.bell.ring):
        async with asyncio.timeout(20):
            while await side.queue.count() != Counts(0, 0):  # noqa: ASYNC110 - on disk
                await asyncio.sleep(0.05)
        assert stored(control_plane, "run:a") == [1, 0, 2]
        control_plane.script = refuse_first
        await side.put("run:b", 0)
        async with asyncio.timeout(20):
            while (await side.queue.count()).set_aside == 0:  # noqa: ASYNC110 - on disk
                await asyncio.sleep(0.05)
        control_plane.script = None
        await run(config, "outgoing", "retry", "--all")
        async with asyncio.timeout(10):
            while not stored(control_plane, "run:b"):  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])


async def test_a_stopped_agent_sends_at_its_next_start_what_is_retried(
    side: Side, control_plane: FakeControlPlane, config: Path
) -> None:
    """Nothing but the files is needed."""
    found = await refused(side, control_plane, config)
    await side.close()
    await run(config, "outgoing", "retry", found)
    control_plane.script = None
    await side.open()
    await side.drain.until_idle()
    assert stored(control_plane, "run:a") == [1, 0, 2]


async def test_drops(side: Side, control_plane: FakeControlPlane, config: Path) -> None:
    """What waits as well as what is set aside; its stream is free then."""
    await refused(side, control_plane, config)
    ids = [row["id"] for row in await listed(config)]
    assert "2 dropped" in await run(config, "outgoing", "drop", *ids)
    assert await side.queue.count() == Counts(0, 0)
    await side.drain.until_idle()
    if isinstance(side, SpoolSide):
        assert not side.queue.holds("run:a")
        assert side.queue.pending == 0
    assert "Nothing waits" in await run(config, "outgoing")


async def test_status_counts(side: Side, control_plane: FakeControlPlane, config: Path) -> None:
    """Both queues."""
    await refused(side, control_plane, config)
    found = json.loads(await run(config, "status", "--json"))
    name = "messages" if isinstance(side, OutboxSide) else "events"
    assert (found[f"{name}_waiting"], found[f"{name}_set_aside"]) == (1, 1)
    assert "hpc-agent outgoing" in await run(config, "status")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["retry", "outbox:999"], HpcAgentError),
        (["retry", "17"], HpcAgentError),
        (["drop", "elsewhere:1"], HpcAgentError),
        (["drop", "outbox:999"], HpcAgentError),
    ],
)
async def test_says_what_ids_are(
    config: Path, arguments: list[str], error: type[Exception]
) -> None:
    """A mistyped id changes nothing."""
    with pytest.raises(error, match=r"outgoing|ids are like"):
        await run(config, "outgoing", *arguments, exit_code=1)


async def test_needs_ids_or_all(config: Path) -> None:
    """Neither is an answer to nothing."""
    await run(config, "outgoing", "retry", exit_code=2)


async def test_database_of_an_older_agent_is_named(side: Side, config: Path) -> None:
    """The next start of the agent updates it."""
    if isinstance(side, SpoolSide):
        change(side, "DROP INDEX writes_refused")
        change(side, "ALTER TABLE writes DROP COLUMN refused_at")
        with pytest.raises(StoreError, match="older"):
            await run(config, "outgoing", "retry", "--all", exit_code=1)
