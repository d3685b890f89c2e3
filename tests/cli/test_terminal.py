"""Commands on a terminal of 80 columns and 24 lines, and in a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from hpc_agent.store import meta
from hpc_agent.store.commands import CommandKind
from tests.cli.conftest import RUN, answered, written

COMMANDS = (["status"], ["jobs", "--all"], ["runs"], ["requests", "--all"], ["history", "run-2"])
CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
LEFT_ALTERNATE_SCREEN = "\x1b[?1049l"


def argv(config: Path, command: str, *rest: str) -> list[str]:
    return ["-m", "hpc_agent", command, "--config", str(config), *rest]


@contextlib.contextmanager
def on_a_terminal(config: Path, *arguments: str) -> Iterator[pexpect.spawn[str]]:
    """Run a command on a terminal of its own."""
    environment = {**os.environ, "TERM": "xterm-256color"}
    child = pexpect.spawn(
        sys.executable,
        argv(config, *arguments),
        dimensions=(24, 80),
        encoding="utf-8",
        timeout=60,
        env={name: value for name, value in environment.items() if name != "NO_COLOR"},
    )
    try:
        yield child
    finally:
        child.close(force=True)


def piped(config: Path, *arguments: str) -> str:
    """Run a command into a pipe and return what it prints."""
    done = subprocess.run(
        [sys.executable, *argv(config, *arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_row_is_wider_than_the_terminal(config: Path, arguments: list[str]) -> None:
    """Columns that may be cut are."""
    with on_a_terminal(config, *arguments) as child:
        shown = child.read()
    lines = CODES.sub("", shown).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80, shown


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_pipe_gets_whole_values_without_codes(config: Path, arguments: list[str]) -> None:
    printed = piped(config, *arguments)
    assert "\x1b" not in printed
    if arguments[0] in {"jobs", "runs", "requests"}:
        assert f"{RUN}1" in printed


def test_logs_are_followed(config: Path, tmp_path: Path) -> None:
    """Until Ctrl-C, while the job runs."""
    stdout = tmp_path / "work" / "jobs" / "run-2" / "stdout"
    stdout.parent.mkdir(parents=True)
    stdout.write_text("first\n")
    with on_a_terminal(config, "logs", "run-2", "-f") as child:
        child.expect_exact("first")
        with stdout.open("a") as file:
            file.write("second\n")
        child.expect_exact("second")
        child.sendintr()
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0


async def test_drain_says_what_the_agent_says(config: Path) -> None:
    await written(config, lambda db: meta.take_lease(db, "test", time.time()))
    asked = asyncio.create_task(asyncio.to_thread(piped, config, "drain"))
    assert (await answered(config, "it drains"))[0] is CommandKind.DRAIN
    assert await asked == "it drains\n"


def test_top_is_ended_by_a_key_and_leaves_the_terminal_as_it_was(config: Path) -> None:
    with on_a_terminal(config, "top", "--interval", "0.2") as child:
        child.expect_exact("job_2")
        child.send("?")
        child.expect_exact("Show partitions")
        child.send("q")
        child.send("q")
        child.expect(pexpect.EOF)
        assert LEFT_ALTERNATE_SCREEN in (child.before or "")
        child.wait()
        assert child.exitstatus == 0


def test_top_without_a_store_is_one_sentence(config: Path) -> None:
    """And not a screen."""
    (config.parent / "home" / "agent.db").unlink()
    with on_a_terminal(config, "top") as child:
        shown = child.read()
        child.wait()
        assert child.exitstatus == 1
    assert "no agent has run with this home directory yet" in shown
    assert "\x1b" not in shown


def test_top_without_textual_names_what_installs_it(config: Path, tmp_path: Path) -> None:
    """A module that is not there, as on a login node without the extra."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['textual'] = None\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    child = pexpect.spawn(
        sys.executable, argv(config, "top"), encoding="utf-8", timeout=60, env=environment
    )
    shown = child.read()
    child.close()
    assert child.exitstatus == 1
    assert "pip install 'dagster-hpc-agent[top]'" in shown
