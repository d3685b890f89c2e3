"""The table: one row for each fault, from the outcomes of its rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.ledger import Finding, Problem
from tests.chaos.round import Outcome

HEADINGS = (
    "fault",
    "runs",
    "lost",
    "doubled",
    "false ends",
    "stuck",
    "events or logs wrong",
    "jobs left",
    "idle jobs",
    "recovery, median (s)",
    "recovery, maximum (s)",
)
_COUNTED = (
    (Finding.LOST,),
    (Finding.DOUBLED,),
    (Finding.FALSE_END,),
    (Finding.STUCK,),
    (Finding.EVENTS, Finding.OUTPUT),
    (Finding.LEFT_OVER, Finding.STRANGER),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; ``counts`` are in the order of its headings."""

    name: str
    runs: int
    counts: Sequence[int]
    recoveries: Sequence[float]
    idle_jobs: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong."""
        return not any(self.counts)

    def cells(self) -> list[str]:
        """Return the cells as text."""
        median = statistics.median(self.recoveries) if self.recoveries else 0.0
        longest = max(self.recoveries, default=0.0)
        numbers = [self.runs, *self.counts, self.idle_jobs]
        return [self.name, *map(str, numbers), f"{median:.0f}", f"{longest:.0f}"]

    def as_json(self) -> dict[str, Any]:
        """Return the cells by heading, and the recoveries of all rounds."""
        named = zip(
            HEADINGS, self.cells()[:1] + [int(cell) for cell in self.cells()[1:]], strict=True
        )
        return {**dict(named), "recoveries (s)": [round(seconds, 1) for seconds in self.recoveries]}

    @classmethod
    def from_json(cls, cells: Mapping[str, Any]) -> Row:
        """Return the row of such cells."""
        return cls(
            name=cells["fault"],
            runs=cells["runs"],
            counts=[cells[heading] for heading in HEADINGS[2 : 2 + len(_COUNTED)]],
            recoveries=cells["recoveries (s)"],
            idle_jobs=cells["idle jobs"],
        )


def row_of(name: str, outcomes: Sequence[Outcome]) -> Row:
    """Return the row of one fault; a round's recovery is the end of its last run."""
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    return Row(
        name=name,
        runs=sum(len(outcome.run_ids) for outcome in outcomes),
        counts=[_count(problems, kinds) for kinds in _COUNTED],
        recoveries=[max(outcome.recoveries, default=0.0) for outcome in outcomes],
        idle_jobs=sum(outcome.idle_jobs for outcome in outcomes),
    )


def total(rows: Sequence[Row]) -> Row:
    """Return the last row."""
    return Row(
        name="all",
        runs=sum(row.runs for row in rows),
        counts=[sum(column) for column in zip(*(row.counts for row in rows), strict=True)],
        recoveries=[seconds for row in rows for seconds in row.recoveries],
        idle_jobs=sum(row.idle_jobs for row in rows),
    )


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    lines = [HEADINGS, ("---", *("---:" for _ in HEADINGS[1:])), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _count(problems: Sequence[Problem], kinds: Sequence[Finding]) -> int:
    """Count runs, not problems; what is about no run counts for itself."""
    meant = [problem for problem in problems if problem.finding in kinds]
    runs = {problem.run_id for problem in meant if problem.run_id}
    return len(runs) + sum(not problem.run_id for problem in meant)
