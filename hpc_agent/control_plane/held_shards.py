"""The SQLite files of runs that write events, held open between the writes.

Dagster opens and closes a run's file around each event (``_connect`` of
dagster/_core/storage/event_log/sqlite/sqlite_event_log.py). Whoever closes a file last copies the
write-ahead log into it and deletes the log, with a sync for each (https://www.sqlite.org/wal.html):
dearer than the event. And each process that meets a run for the first time reads all revisions of
Alembic to learn that the file, which another one has just made, is up to date.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)

MOST_HELD = 128
"""Three descriptors each."""


class HeldShards:
    """Holds the files of the runs that wrote last; blocking, safe from many threads.

    Of a storage that is no directory of such files nothing is held.
    """

    def __init__(self, log: EventLogStorage, most: int = MOST_HELD) -> None:
        self._log = log if isinstance(log, SqliteEventLogStorage) else None
        self._most = most
        self._held: OrderedDict[str, sqlite3.Connection] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def writing(self, run_id: str) -> Iterator[None]:
        """Hold a run's file while events are written, and longer; then tell who watches it."""
        if self._log is None:
            yield
            return
        path = Path(self._log.path_for_shard(run_id))
        with self._lock:
            # A run without a file gets one by its first event: then the next one finds it.
            self._hold(run_id, path)
            self._hold(INDEX_SHARD_NAME, Path(self._log.path_for_shard(INDEX_SHARD_NAME)))
            while len(self._held) > self._most:
                _, oldest = self._held.popitem(last=False)
                oldest.close()
        yield
        # What is in its log alone changes nothing of the file, by which the webserver notices news
        # (``SqliteEventLogStorageWatchdog``).
        with contextlib.suppress(OSError):
            os.utime(path)

    def close(self) -> None:
        """Let all files go."""
        with self._lock:
            while self._held:
                self._held.popitem()[1].close()

    def _hold(self, shard: str, path: Path) -> None:
        if shard in self._held:
            self._held.move_to_end(shard)
            return
        connection = _opened(path)
        if connection is not None and self._log is not None:
            self._held[shard] = connection
            self._log._initialized_dbs.add(shard)  # all that Dagster does to it is done


def _opened(path: Path) -> sqlite3.Connection | None:
    """Open a file whose tables are all there; None for another, or for none.

    What SQLite has read from once keeps its log open, and its shared lock.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        with contextlib.suppress(sqlite3.Error):
            if connection.execute("SELECT version_num FROM alembic_version").fetchone():
                return connection
        connection.close()
    return None
