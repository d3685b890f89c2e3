"""``hpc-agent top``: what its keys do, on the store of an agent, at 80 columns and 24 lines."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlite_utils import Database
from textual.pilot import Pilot
from textual.screen import Screen
from typer.testing import CliRunner

from hpc_agent.cli import app as command
from hpc_agent.cli.top.app import Top
from hpc_agent.cli.top.listing import Listing
from hpc_agent.cli.top.output_page import as_lines
from hpc_agent.config import load_config
from hpc_agent.errors import UsageError
from hpc_agent.files import LocalFiles
from hpc_agent.store import meta, rows
from hpc_agent.store.commands import CommandKind
from hpc_agent.store.phases import Phase
from tests.cli.conftest import answered, written

SIZE = (80, 24)
_PATIENCE_SECONDS = 60.0


def screen_of(app: Top) -> list[str]:
    """Return the lines that somebody sees."""
    screen: Screen[object] = app.screen
    return [
        "".join(segment.text for segment in strip)
        for strip in screen._compositor.render_strips(app.size)
    ]


class Watched:
    """A screen and its keyboard."""

    def __init__(self, pilot: Pilot[None], app: Top) -> None:
        self._pilot = pilot
        self.app = app

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def sees(self, *texts: str, without: str | None = None) -> None:
        """Wait until each of the texts is on the screen."""

        def look() -> bool:
            shown = "\n".join(screen_of(self.app))
            return all(text in shown for text in texts) and (
                without is None or without not in shown
            )

        await self.until(look)

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "\n".join(screen_of(self.app))
            await self._pilot.pause(0.02)

    @property
    def keys(self) -> list[str]:
        """The jobs of the list, from top to bottom."""
        return [row["key"] for row in self.app.query_one(Listing)._rows]

    @property
    def chosen(self) -> str:
        row = self.app.query_one(Listing).chosen
        return row["key"] if row else ""


@asynccontextmanager
async def watched(config: Path, every_seconds: float = 0.1) -> AsyncIterator[Watched]:
    app = Top(load_config(config, environ={}), LocalFiles(), every_seconds=every_seconds)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        there = Watched(pilot, app)
        await there.until(lambda: bool(there.keys))
        yield there


def job_directory(config: Path, key: str) -> Path:
    directory = load_config(config, environ={}).work_dir / "jobs" / key
    directory.mkdir(parents=True)
    return directory


async def test_runs_are_listed_with_the_state_of_the_agent(config: Path) -> None:
    """All columns that are shown at first fit, and so does everything else."""
    async with watched(config) as there:
        await there.sees("Agent does not run", "3 runs that are not over", "0a1b2c3d", "job_2")
        (heading,) = [line for line in screen_of(there.app) if "LOCATION" in line]
        assert heading.split() == [
            *("RUN", "NAME", "LOCATION", "STATE", "ELAPSED", "JOB", "PARTITION", "NODE", "QUEUE")
        ]
        assert {len(line) for line in screen_of(there.app)} == {80}
        assert there.keys == ["run-1-again", "run-2", "run-3"]


async def test_what_comes_and_goes_does_not_move_the_cursor(config: Path) -> None:
    """It stays on its job."""
    async with watched(config) as there:
        await there.press("down")
        await there.until(lambda: there.chosen == "run-2")
        await written(config, lambda db: conclude(db, "run-1-again"))
        await there.until(lambda: there.keys == ["run-2", "run-3"])
        assert there.chosen == "run-2"
        await there.press("a")
        await there.until(lambda: len(there.keys) == 3)
        assert there.chosen == "run-2"


async def test_list_is_filtered_sorted_and_of_jobs_too(config: Path) -> None:
    """By words as they are typed, until escape; by each key that sorts."""
    async with watched(config) as there:
        await there.press("j", "slash", *"alpha qu")
        await there.until(lambda: there.keys == ["run-1"])
        await there.sees("1 jobs that are not over with 'alpha qu'")
        await there.press("escape")
        await there.until(lambda: len(there.keys) == 5)
        await there.press("r")
        await there.until(lambda: there.keys[0] == "server")
        await there.press("s", "s")
        await there.sees("by ended (smallest first)")


async def test_columns_are_chosen(config: Path) -> None:
    """In a list that the keys work."""
    async with watched(config) as there:
        await there.press("c")
        await there.sees("space: show or hide")
        await there.press("space", "escape")
        await there.until(lambda: "RUN " not in screen_of(there.app)[2])
        await there.sees("NAME", "QUEUE")


async def test_output_is_shown_as_it_comes(config: Path) -> None:
    """Of the job that is chosen, each stream on its page; what a terminal obeys is no text."""
    directory = job_directory(config, "run-2")
    (directory / "stdout").write_text("first\n\x1b[31mred\x1b[0m\n 1%\r99%\n")
    (directory / "stderr").write_text("a complaint\n")
    async with watched(config) as there:
        await there.press("down")
        await there.sees("first", "red", "99%")
        with (directory / "stdout").open("a") as file:
            file.write("second \u00e9\n")
        await there.sees("second \u00e9")
        await there.press("2")
        await there.sees("a complaint", without="first")
        await there.press("z")
        await there.sees("a complaint", without="PARTITION")
        await there.press("escape", "down")
        await there.sees("PARTITION", without="a complaint")


async def test_file_that_is_no_output_is_told(config: Path) -> None:
    """User code makes what is in its directory."""
    (job_directory(config, "run-2") / "stdout").symlink_to("/etc/passwd")
    async with watched(config) as there:
        await there.press("down")
        await there.sees("is not a regular file")


async def test_job_is_explained_and_partitions_are_summed_up(config: Path) -> None:
    """On pages of their own."""
    async with watched(config) as there:
        await there.press("3")
        await there.sees("node c1 failed", "Attempts")
        await there.press("4")
        await there.sees("ALL IN LINE", "IDLE NODES")
        lines = [line.split() for line in screen_of(there.app)]
        assert ["batch", "0", "1", "-", "-", "-", "-", "-", "-"] in lines
        assert ["gpu", "1", "0", "-", "-", "-", "-", "-", "-"] in lines


async def test_paused_screen_stands_still(config: Path) -> None:
    """Until it is told to go on."""
    async with watched(config) as there:
        await there.press("p")
        await there.sees("PAUSED")
        await written(config, lambda db: conclude(db, "run-3"))
        await there.press("down", "up")
        assert "run-3" in there.keys
        await there.press("p")
        await there.until(lambda: "run-3" not in there.keys)


async def test_run_is_cancelled_after_a_question(config: Path) -> None:
    """The agent is asked to, and what it answers is shown; another answer than yes asks nothing."""
    await written(config, lambda db: meta.take_lease(db, "test", time.time()))
    async with watched(config) as there:
        await there.press("down", "x")
        await there.sees("End 0a1b2c3d (job_2 of alpha)?")
        await there.press("n", "x")
        await there.sees("End 0a1b2c3d")
        await there.press("y")
        assert await answered(config, "it is asked to end") == (
            CommandKind.CANCEL,
            {"key": "run-2"},
        )
        await there.sees("it is asked to end")


async def test_cancel_without_an_agent_says_so(config: Path) -> None:
    async with watched(config) as there:
        await there.press("x", "y")
        await there.sees("no agent runs with the")


async def test_keys_are_explained_and_one_ends_it(config: Path) -> None:
    """All of them fit on the screen."""
    async with watched(config) as there:
        await there.press("question_mark")
        await there.sees("Quit", "Columns", "Pause", "Cancel", "Show partitions", "Choose, scroll")
        await there.press("escape", "q")
        await there.until(lambda: there.app._exit)


async def test_store_that_is_away_is_no_end(config: Path) -> None:
    """What was last known stays, and the reason is told."""
    home = load_config(config, environ={}).home
    async with watched(config) as there:
        await there.sees("3 runs")
        home.rename(home.with_name("elsewhere"))
        await there.sees("NOT UP TO DATE", "job_2")
        home.with_name("elsewhere").rename(home)
        await there.sees("3 runs", without="NOT UP")


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("a\r\nb\n", "a\nb\n"),
        ("10%\r20%\rdone\n", "done\n"),
        ("\x1b]0;title\x07x\x1b[2Jy\x1b(", "xy ("),
        ("tab\tand \x00 nul", "tab     and   nul"),
        ("left\u202eright", "left right"),
    ],
)
def test_output_does_nothing_to_the_terminal(printed: str, shown: str) -> None:
    assert as_lines(printed) == shown


def test_pipe_is_no_screen(config: Path) -> None:
    """The message names what does for one."""
    result = CliRunner().invoke(command, ["top", "--config", str(config)])
    assert isinstance(result.exception, UsageError)
    assert "runs --watch" in str(result.exception)


def conclude(db: Database, key: str) -> None:
    """Let the last word on a worker be said."""
    rows.update(db, "workers", "key", key, {"phase": Phase.ENDED, "concluded_at": time.time()})
