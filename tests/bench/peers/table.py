"""The rows for people: each measure with its contestants side by side, best first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from tests.bench.peers.rows import Row

HEADINGS = ("contestant", "median", "p95", "values", "times the best")


def grouped(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of each measure, the best first, those without a value last."""
    order = {row.key: at for at, row in reversed(list(enumerate(rows)))}
    ordered = sorted(rows, key=lambda row: (order[row.key], row.median is None, _badness(row)))
    return {key: list(members) for key, members in groupby(ordered, key=lambda row: row.key)}


def cells(row: Row, best: float | None) -> list[str]:
    """Return the cells of one row; ``best`` is the best median of its measure."""
    if row.median is None:
        return [row.contestant, row.reason, "", "", ""]
    ratio = row.median and best and (best / row.median if row.is_rate else row.median / best)
    times = f"{ratio:.1f}" if ratio else ""
    p95 = "" if row.p95 is None else _number(row.p95)
    median = f"{_number(row.median)} {row.unit}".strip()
    return [row.contestant, median, p95, f"{row.count}", times]


def text(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    lines: list[str] = []
    for (part, measure), members in grouped(rows).items():
        lines.append(f"\n{part}: {measure}")
        for row in members:
            name, *rest = cells(row, members[0].median)
            if row.median is None:
                lines.append(f"  {name:28} {row.reason}")
            else:
                lines.append(f"  {name:28} " + " ".join(f"{cell:>16}" for cell in rest))
    heading = " ".join(f"{heading:>16}" for heading in HEADINGS[1:])
    return "\n".join([f"  {HEADINGS[0]:28} {heading}", *lines])


def markdown(members: Sequence[Row]) -> str:
    """Return the table of one measure for a page."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(cells(row, members[0].median))} |" for row in members]
    return "\n".join(lines)


def _badness(row: Row) -> float:
    return -(row.median or 0) if row.is_rate else (row.median or 0)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"
