"""Rows of a table as frozen dataclasses: columns have the names of the fields."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlite_utils import Database


def columns_of(record: type, *, without: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return the columns that hold the fields of a dataclass."""
    return tuple(field.name for field in fields(record) if field.name not in without)


def to_column(value: Any) -> Any:
    """Return a value as a column holds it."""
    return value.value if isinstance(value, enum.Enum) else value


def insert(db: Database, table: str, values: Mapping[str, Any], *, or_ignore: bool = False) -> Any:
    """Insert a row and return the cursor; table and columns are our own names."""
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    verb = "INSERT OR IGNORE" if or_ignore else "INSERT"
    return db.execute(
        f"{verb} INTO {table} ({names}) VALUES ({marks})",
        [to_column(value) for value in values.values()],
    )


def update(db: Database, table: str, key: str, identity: Any, changes: Mapping[str, Any]) -> None:
    """Change columns of one row; table and columns are our own names."""
    if not changes:
        return
    assignments = ", ".join(f"{name} = ?" for name in changes)
    db.execute(
        f"UPDATE {table} SET {assignments} WHERE {key} = ?",  # noqa: S608
        [*(to_column(value) for value in changes.values()), identity],
    )
