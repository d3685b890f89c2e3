"""Dagster's SQLite databases stay open, so that nobody removes their logs under others."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from dagster import DagsterInstance

from hpc_agent.control_plane.kept_open import kept_open

NAMES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.get_runs()
        assert instance.schedule_storage is not None
    return tmp_path


def write(path: Path) -> None:
    """Write as Dagster does: by a connection of its own."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (x)")


@pytest.mark.parametrize("name", NAMES)
def test_whoever_closes_is_not_the_last(home: Path, name: str) -> None:
    """The log stays; without, it is gone with the connection."""
    path = home / name
    log = Path(f"{path}-wal")
    with kept_open(home):
        write(path)
        assert log.exists()
    write(path)
    assert not log.exists()


def test_writers_wait_for_nobody(home: Path) -> None:
    """A connection that is kept open holds no lock that a writer needs."""
    with kept_open(home):
        for name in NAMES:
            connection = sqlite3.connect(home / name, timeout=0)
            with contextlib.closing(connection), connection:
                connection.execute("CREATE TABLE u (x)")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_home_of_another_storage_has_none(tmp_path: Path) -> None:
    """As with PostgreSQL."""
    with kept_open(tmp_path):
        assert list(tmp_path.iterdir()) == []
