"""SQLite files that stay open between queries: those that were used last."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import Connection, Engine


class KeptFiles:
    """Lends the connection to a file, one borrower at a time; safe from many threads.

    ``engine_of`` makes a file if need be, and returns an engine for it.
    """

    def __init__(self, engine_of: Callable[[Path], Engine], most: int) -> None:
        self._engine_of = engine_of
        self._most = most
        self._files: OrderedDict[Path, _File] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def transaction(self, path: Path) -> Iterator[Connection]:
        """Lend a file's connection for a transaction, which is rolled back by an exception.

        Raises what ``engine_of`` and SQLAlchemy do.
        """
        with self._used(path) as file:
            connection = file.opened(self._engine_of)
            try:
                with connection.begin():
                    yield connection
            except BaseException:
                file.close()  # whatever it was, the next one begins anew
                raise

    def close(self) -> None:
        """Close all files, once nobody uses them."""
        with self._lock:
            files = list(self._files.values())
            self._files.clear()
        for file in files:
            with file.lock:
                file.close()

    @contextmanager
    def _used(self, path: Path) -> Iterator[_File]:
        with self._lock:
            file = self._files.setdefault(path, _File(path))
            self._files.move_to_end(path)
            file.users += 1
        try:
            with file.lock:
                yield file
        finally:
            with self._lock:
                file.users -= 1
                self._let_go()

    def _let_go(self) -> None:
        excess = len(self._files) - self._most
        if excess <= 0:
            return
        idle = [path for path, file in self._files.items() if not file.users]
        for path in idle[:excess]:
            self._files.pop(path).close()


class _File:
    """One file, and the connection to it while there is one."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self._path = path
        self._connection: Connection | None = None
        self._identity: tuple[int, int] | None = None

    def opened(self, engine_of: Callable[[Path], Engine]) -> Connection:
        """Return the connection to what is at the path; another file may be there meanwhile."""
        if self._connection is None or self._identity != _identity(self._path):
            self.close()
            self._connection = engine_of(self._path).connect()
            self._identity = _identity(self._path)
        return self._connection

    def close(self) -> None:
        """Close it, if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None
