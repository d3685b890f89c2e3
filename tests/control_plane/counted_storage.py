"""Dagster's SQLite storage, which counts how often a process has opened it."""

from __future__ import annotations

from typing import Any

from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

opened: list[str] = []


class CountedStorage(DagsterSqliteStorage):
    """Named in a dagster.yaml; notes its directory in ``opened``."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        opened.append(base_dir)
        super().__init__(base_dir, inst_data)
