"""Dagster's SQLite databases, kept open: its own processes open and close one for each statement.

Whoever closes the last connection to a database takes it for itself to remove the write-ahead log,
and who opens it meanwhile is told at once that it is locked, whatever its time-out
(https://www.sqlite.org/wal.html, section 8). As long as one connection stays, nobody is the last.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Below the home, where Dagster's SQLite storage has what is not of a single run
# (SqliteRunStorage, SqliteEventLogStorage and SqliteScheduleStorage in dagster/_core/storage).
_DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")


@contextmanager
def kept_open(home: Path) -> Iterator[None]:
    """Keep a connection to each of these databases; none where Dagster stores elsewhere."""
    with contextlib.ExitStack() as stack:
        for name in _DATABASES:
            path = home / name
            if path.is_file():
                stack.enter_context(contextlib.closing(_opened(path)))
        yield


def _opened(path: Path) -> sqlite3.Connection:
    """Only what has read holds the lock that says that somebody is there."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection
