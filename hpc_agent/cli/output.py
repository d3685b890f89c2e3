"""How commands print: tables for people, JSON for scripts, one line for an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

EXIT_FAILURE = 1
EXIT_USAGE = 2


def print_json(value: object) -> None:
    """Print a value as JSON, alone on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print rows as a table; None shows as a dash."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " ").upper(), overflow="fold")
    for row in rows:
        table.add_row(*("-" if row.get(name) in {None, ""} else str(row[name]) for name in columns))
    Console().print(table)


def print_line(text: str) -> None:
    """Print one line."""
    sys.stdout.write(text + "\n")


def time_of(at: float) -> str:
    """Return a time as people read it, for example ``2026-03-01 14:03 UTC``."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def print_error(text: str) -> None:
    """Print an error to standard error."""
    sys.stderr.write(f"hpc-agent: {text}\n")
