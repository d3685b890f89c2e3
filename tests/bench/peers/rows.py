"""What was measured, one row for each measure of each contestant."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MACHINE = "machine"
"""The part of what is no merit of a contestant: how busy all else was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Median and 95th percentile of ``count`` values, or the ``reason`` why there are none."""

    part: str
    measure: str
    contestant: str
    unit: str = ""
    median: float | None = None
    p95: float | None = None
    count: int = 0
    reason: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What rows of several contestants are compared by."""
        return self.part, self.measure

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit == "/s"


def row_of(part: str, measure: str, contestant: str, unit: str, values: Iterable[float]) -> Row:
    """Return the row of these values."""
    ordered = sorted(values)
    if not ordered:
        return missing(part, measure, contestant, "nothing was measured")
    return Row(
        part=part,
        measure=measure,
        contestant=contestant,
        unit=unit,
        median=_digits(statistics.median(ordered)),
        p95=_digits(percentile(ordered, 0.95)),
        count=len(ordered),
    )


def of_all(part: str, measure: str, contestant: str, seconds: float, count: int) -> Row:
    """Return the row of what took so long for so many: the seconds of each."""
    return Row(
        part=part,
        measure=measure,
        contestant=contestant,
        unit="s each",
        median=_digits(seconds / count),
        count=count,
    )


def missing(part: str, measure: str, contestant: str, reason: str) -> Row:
    """Return the row of what could not be measured, with the last line of the reason."""
    return Row(part=part, measure=measure, contestant=contestant, reason=last_line(reason))


def last_line(text: str) -> str:
    """Return the last line that says something: in a traceback, what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason was given"


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which this share of ordered values lies (nearest rank)."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def value_of(rows: Sequence[Row], part: str, measure: str, contestant: str) -> float | None:
    """Return the median of a row, None where there is none."""
    for row in rows:
        if (row.part, row.measure, row.contestant) == (part, measure, contestant):
            return row.median
    return None


def exponent(points: Mapping[float, float]) -> float:
    """Return how values grow: the slope of the line through their logarithms."""
    logs = [(math.log(x), math.log(y)) for x, y in points.items() if x > 0 and y > 0]
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def to_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return rows as they stand in the file, without what they do not have."""
    return [
        {name: value for name, value in asdict(row).items() if value not in {None, "", 0}}
        for row in rows
    ]


def from_json(content: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of a file."""
    return [Row(**each) for each in content]


def _digits(value: float) -> float:
    """Keep four digits: more is noise."""
    return float(f"{value:.4g}")
