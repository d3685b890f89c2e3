"""What removes files at the end of a process is told from what does not."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.node.pool.removals import RemovalWatch, removes_files


def careful(path: str, process: int) -> None:
    """Leave the file to the process that has made it."""
    if os.getpid() == process:
        Path(path).unlink()


def careless(path: str) -> None:
    """Remove it in any process."""
    os.remove(path)  # noqa: PTH107


@pytest.mark.parametrize(
    "function",
    [
        shutil.rmtree,
        os.remove,
        os.removedirs,
        Path("x").unlink,
        Path.rmdir,
        functools.partial(functools.partial(os.unlink), "x"),
        tempfile.TemporaryDirectory.cleanup,
        careless,
        lambda: shutil.rmtree("x"),
    ],
)
def test_removal_is_seen(function: Callable[..., Any]) -> None:
    """Also behind arguments that are given already, and in the code of a function."""
    assert removes_files(function)


@pytest.mark.parametrize(
    "function",
    [careful, logging.shutdown, [1].remove, ExitStack().close, functools.partial(print, "x"), 7],
)
def test_others_are_left_alone(function: object) -> None:
    """What asks for its process is none."""
    assert not removes_files(function)


def test_registrations_are_seen(tmp_path: Path) -> None:
    """Those of the time, with path and module; not what was taken back or is done."""
    kept = functools.partial(careless, "kept")
    before = tempfile.TemporaryDirectory(dir=tmp_path)
    watch = RemovalWatch()
    with watch.watching():
        during = tempfile.TemporaryDirectory(dir=tmp_path)
        with tempfile.TemporaryDirectory(dir=tmp_path):
            pass
        atexit.register(kept)
        atexit.register(careless, "taken back")
        atexit.unregister(careless)
    assert watch.found() == [
        f"{__name__}.careless('kept'), in {__name__}",
        f"tempfile.TemporaryDirectory._cleanup({during.name!r})",
    ]
    atexit.unregister(kept)
    for each in (before, during):
        each.cleanup()
