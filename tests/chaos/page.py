"""The page docs/reliability.md: the promise, what lies outside it, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from string import Template

from tests.chaos.fault import Fault
from tests.chaos.table import Row, markdown, total

_TEMPLATE = Path(__file__).parent / "reliability.md.in"
_STOCK_HEADINGS = ("fault", "runs", "hpc-agent", "recovery", "runs", "stock agent", "recovery")


def page(faults: Sequence[Fault], rows: Sequence[Row], stock: Sequence[Row], *, seed: int) -> str:
    """Return the whole page."""
    return Template(_TEMPLATE.read_text()).substitute(
        command=f"`python -m tests.chaos --full --seed {seed}`",
        table=markdown([*rows, total(rows)]) + _not_played(faults, rows),
        faults="\n".join(_groups(faults)),
        stock=_side_by_side(rows, stock),
    )


def listed(text: str) -> list[str]:
    """Return the names of the faults that a page lists."""
    section = text.partition("## The faults\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    return [name for name in rows if name != "fault"]


def _not_played(faults: Sequence[Fault], rows: Sequence[Row]) -> str:
    """Say which faults a session that was broken off has left out."""
    played = {row.name for row in rows}
    missing = [fault.name for fault in faults if fault.name not in played]
    return f"\nNot played this time: {', '.join(missing)}.\n" if missing else ""


def _groups(faults: Sequence[Fault]) -> list[str]:
    parts = []
    for group, members in groupby(faults, key=lambda fault: fault.group):
        lines = [f"### {group[0].upper()}{group[1:]}\n", "| fault | what happens |", "|---|---|"]
        lines += [f"| {fault.name} | {fault.text} |" for fault in members]
        parts.append("\n".join(lines) + "\n")
    return parts


def _side_by_side(rows: Sequence[Row], stock: Sequence[Row]) -> str:
    if not stock:
        return "Not played this time.\n"
    ours = {row.name: row for row in rows}
    lines = [
        f"| {' | '.join(_STOCK_HEADINGS)} |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in stock:
        left = _brief(ours[row.name]) if row.name in ours else ["", "", ""]
        lines.append(f"| {' | '.join([row.name, *left, *_brief(row)])} |")
    return "\n".join(lines) + "\n"


def _brief(row: Row) -> list[str]:
    # Without the jobs that are left, which only Slurm has.
    return [str(row.runs), " / ".join(map(str, row.counts[:-1])), row.cells()[-1]]
