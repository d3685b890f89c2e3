"""The bell at an agent's home: rung by commands, heard at once, and no harm where it is missing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_agent.doorbell import FILE_NAME, answered, ring, waited_for


async def heard(event: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await event.wait()
    event.clear()


async def test_ring_of_another_process_is_heard_each_time(tmp_path: Path) -> None:
    """Also after a ringer has gone, and at a path that is too long for a unix socket."""
    home = tmp_path / ("deep" * 50)
    home.mkdir()
    code = "import sys, pathlib, hpc_agent.doorbell as d; d.ring(pathlib.Path(sys.argv[1]))"
    rung = asyncio.Event()
    async with answered(home, rung.set):
        for _ in range(2):
            await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code, str(home)], check=True
            )
            await heard(rung)
        await asyncio.sleep(0)
        assert not rung.is_set()
    assert (home / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_what_was_left_behind_is_used_again(tmp_path: Path) -> None:
    """By an agent that was killed; what is no pipe makes room."""
    (tmp_path / FILE_NAME).write_text("no bell")
    rung = asyncio.Event()
    for _ in range(2):
        async with answered(tmp_path, rung.set):
            ring(tmp_path)
            await heard(rung)


def test_ring_that_nobody_hears_does_nothing(tmp_path: Path) -> None:
    """No agent, one that was killed, and a file or a link in the bell's place."""
    ring(tmp_path)
    os.mkfifo(tmp_path / FILE_NAME)
    ring(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / FILE_NAME).symlink_to(other)
    ring(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    other.rename(tmp_path / FILE_NAME)
    ring(tmp_path)
    assert (tmp_path / FILE_NAME).read_text() == "kept"


async def test_agent_without_a_bell_says_how_long_commands_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory in its place for instance: that is no reason not to start."""
    (tmp_path / FILE_NAME).mkdir()
    async with answered(tmp_path, lambda: None):
        assert "commands take up to 20 s" in caplog.text


def test_where_no_bell_can_be_whoever_waits_for_it_goes_on(tmp_path: Path) -> None:
    """The control plane's daemon looks into its queue each interval then."""
    (tmp_path / FILE_NAME / "in the way").mkdir(parents=True)
    with waited_for(tmp_path) as wait:
        ring(tmp_path)
        assert not wait(0.01)
