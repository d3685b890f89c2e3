"""What of the agent's jobs is on the screen, in which order, and which of their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpc_agent.cli.jobs import DESCRIPTION, ELAPSED, RUN_ID, STATE, WAIT
from hpc_agent.cli.table import Column
from hpc_agent.config import AgentConfig
from hpc_agent.inspection.jobs import read_jobs, read_runs
from hpc_agent.store.selection import ORDERS, Selection

Row = Mapping[str, Any]
MOST_ROWS = 1000


def _position(position: Mapping[str, Any]) -> str:
    return f"{position['position']}/{position['of']}"


COLUMNS: Mapping[str, Column] = {
    column.heading: column
    for column in (
        RUN_ID,
        Column("job_name", "name", elastic=True),
        Column("location", elastic=True),
        STATE,
        WAIT,
        ELAPSED,
        Column("job_id", "job", elastic=True),
        Column("partition", elastic=True),
        Column("nodes", "node", elastic=True),
        Column("position", "queue", short=_position),
        Column("attempt", "tries"),
        Column("kind", short=lambda kind: kind.replace("_", " ")),
        Column("deployment", elastic=True),
        Column("reason", elastic=True),
        DESCRIPTION,
    )
}
_AT_FIRST = ("RUN", "NAME", "LOCATION", "STATE", "ELAPSED", "JOB", "PARTITION", "NODE", "QUEUE")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Runs, or all jobs; each change is another view."""

    is_of_jobs: bool = False
    with_concluded: bool = False
    order: str = "created"
    ascending: bool = False
    words: str = ""
    shown: frozenset[str] = frozenset(_AT_FIRST)

    @property
    def columns(self) -> list[Column]:
        """The columns that are shown."""
        return [column for name, column in COLUMNS.items() if name in self.shown]

    def read(self, config: AgentConfig) -> Sequence[Row]:
        """Return the rows, whatever the words. Raises StoreError."""
        asked = Selection(
            with_concluded=self.with_concluded,
            order=self.order,
            ascending=self.ascending,
            limit=MOST_ROWS,
        )
        return read_jobs(config, asked) if self.is_of_jobs else read_runs(config, asked)

    def filtered(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that have each of the words in one of their values."""
        words = self.words.lower().split()
        return [row for row in rows if all(word in _text(row) for word in words)]

    def with_next_order(self) -> View:
        """Return the view by what comes after the present order."""
        names = list(ORDERS)
        return replace(self, order=names[(names.index(self.order) + 1) % len(names)])

    def describe(self) -> str:
        """Say what is shown, for a line above it."""
        what = "jobs" if self.is_of_jobs else "runs"
        which = f"all {what}" if self.with_concluded else f"{what} that are not over"
        words = f" with {self.words!r}" if self.words else ""
        return f"{which}{words}, by {self.order}{' (smallest first)' if self.ascending else ''}"


def _text(row: Row) -> str:
    return " ".join(str(value) for value in row.values() if value is not None).lower()
