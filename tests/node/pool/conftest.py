"""Pools that run, and what their members run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .running import RunningPool

_CODE = Path(__file__).parent / "code"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's project, at a place of its own."""
    directory = tmp_path_factory.mktemp("project") / "code"
    shutil.copytree(_CODE, directory, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPool]:
    """A pool that stays."""
    running = RunningPool(tmp_path_factory.mktemp("pool"))
    yield running
    running.close()
