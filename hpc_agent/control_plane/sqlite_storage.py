"""Dagster's SQLite files, kept open between queries, and made for a new run by a copy.

The stock storages open and close a file around each query. Whoever closes a file last copies the
write-ahead log into it and deletes the log, with a sync for each (https://www.sqlite.org/wal.html):
dearer than most queries. For the file of each new run they create all tables anew and read all
revisions of Alembic, and so does each further process that meets the run
(``SqliteEventLogStorage._initdb`` of dagster/_core/storage/event_log/sqlite/sqlite_event_log.py).
The files are the same, and stock storages may use them at the same time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import EventLogEntry
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool, QueuePool

from hpc_agent.control_plane.kept_files import KeptFiles

MOST_KEPT = 128
"""Files of runs that stay open; three descriptors each."""

_KEPT_CONNECTIONS = 4


def with_kept_files(reference: InstanceRef) -> InstanceRef:
    """Return the same instance, with storages of this module if it has the stock SQLite ones."""
    storage = reference.storage_data
    if storage is None or storage.class_name != DagsterSqliteStorage.__name__:
        return reference
    kept = ConfigurableClassData(__name__, KeptSqliteStorage.__name__, storage.config_yaml)
    return reference._replace(storage_data=kept)


class KeptSqliteStorage(DagsterSqliteStorage):
    """Runs, events and schedules, in the files that the stock storage has."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._run_storage = _KeptRuns(self._run_storage._conn_string)
        self._event_log_storage = KeptEventLog(self._event_log_storage._base_dir)
        self._schedule_storage = _KeptSchedules(self._schedule_storage._conn_string)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> Any:
        """See ConfigurableClass.from_config_value."""
        return cls.from_local(inst_data=inst_data, **config_value)


class _Pooled:
    """What Dagster's storages of one file do, with connections that are kept."""

    def __init__(self, conn_string: str) -> None:
        super().__init__(conn_string)  # type: ignore[call-arg]  # the storage beside this class
        self._engine = _engine(conn_string, pool_size=_KEPT_CONNECTIONS, max_overflow=-1)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Have a transaction."""
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close all connections."""
        self._engine.dispose()


class _KeptRuns(_Pooled, SqliteRunStorage):
    pass


class _KeptSchedules(_Pooled, SqliteScheduleStorage):
    pass


class KeptEventLog(SqliteEventLogStorage):
    """Events, in a file for each run; those that were used last stay open."""

    def __init__(self, base_dir: str, most: int = MOST_KEPT) -> None:
        super().__init__(base_dir)
        self._files = KeptFiles(self._engine_of, most)
        self._blank = _Blank(self._initdb)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._files.transaction(Path(self.path_for_shard(shard))) as connection:
            yield connection

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event, then tell who watches its run."""
        super().store_event(event)
        # What is in its log alone changes nothing of the file, by which the webserver notices news
        # (``SqliteEventLogStorageWatchdog``).
        with contextlib.suppress(OSError):
            os.utime(self.path_for_shard(event.run_id))

    def wipe(self) -> None:
        """Remove all events. SQLite removes the logs of files as it closes them: closed first."""
        self._files.close()
        super().wipe()

    def dispose(self) -> None:
        """Close all files."""
        super().dispose()
        self._files.close()

    def _engine_of(self, path: Path) -> Engine:
        engine = _engine(f"sqlite:///{path}")
        if not path.exists():
            _put(path, self._blank.content())
        if not _has_tables(path):
            self._initdb(engine)
        return engine


class _Blank:
    """The file of a run that has no events yet, made once; safe from many threads."""

    def __init__(self, initdb: Callable[[Engine], None]) -> None:
        self._initdb = initdb
        self._content: bytes | None = None
        self._lock = threading.Lock()

    def content(self) -> bytes:
        """Return what is in it."""
        with self._lock:
            if self._content is None:
                with tempfile.TemporaryDirectory() as directory:
                    path = Path(directory) / "blank.db"
                    self._initdb(_engine(f"sqlite:///{path}"))
                    self._content = path.read_bytes()
            return self._content


def _engine(url: str, **pool: Any) -> Engine:
    return create_engine(
        url,
        poolclass=QueuePool if pool else NullPool,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        **pool,
    )


def _put(path: Path, content: bytes) -> None:
    """Have a file with this content, durable, unless another one is there meanwhile."""
    with tempfile.NamedTemporaryFile(prefix=".", suffix=".tmp", dir=path.parent) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)


def _has_tables(path: Path) -> bool:
    """Whether all that Dagster does to a new file is done: its revision comes last."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as file:
        return bool(file.execute("SELECT version_num FROM alembic_version").fetchone())
    return False
