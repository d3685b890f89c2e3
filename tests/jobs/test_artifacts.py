"""Artifacts of runs: counted, and removed when nobody has used them for long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc_agent.config import parse_config
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.artifacts import Usage, remove_unused, usage_of

FUTURE = 4e9


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    stored = tmp_path / "prod" / "here" / "storage"
    (stored / "run").mkdir(parents=True)
    (stored / "asset").write_bytes(b"x" * 1000)
    (stored / "run" / "result").write_bytes(b"x" * 24)
    (tmp_path / "prod" / "here" / "mine").write_bytes(b"of somebody")
    (tmp_path / "data").write_bytes(b"of somebody else")
    (stored / "link").symlink_to(tmp_path / "data")
    return tmp_path


def test_files_of_dagster_are_counted(directory: Path) -> None:
    assert usage_of(directory) == Usage(2, 1024)
    assert usage_of(directory / "absent") == Usage(0, 0)


def test_only_what_is_old_and_dagsters_is_removed(directory: Path) -> None:
    """A directory that holds other files as well loses none of them."""
    stored = directory / "prod" / "here" / "storage"
    assert remove_unused(directory, before=1.0) == 0
    os.utime(stored / "asset", (FUTURE, 1.0))
    assert remove_unused(directory, before=FUTURE - 1) == 1
    assert sorted(path.name for path in stored.iterdir()) == ["asset", "link"]
    assert (directory / "data").exists()
    assert (directory / "prod" / "here" / "mine").exists()


def test_retention_on_another_machine_is_refused() -> None:
    settings = {
        "control_plane": {"url": "https://x"},
        "work_dir": "/work",
        "scheduler": {"transport": "ssh", "ssh": {"host": "login"}},
        "artifacts": {"keep_days": 3},
    }
    with pytest.raises(ConfigError, match=r"artifacts\.keep_days"):
        parse_config(settings, source="test")
