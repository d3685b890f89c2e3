"""The page docs/benchmark.md and its plots, out of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from tests.bench.peers import table
from tests.bench.peers.measures import launches, round_trips
from tests.bench.peers.plots import bars
from tests.bench.peers.report import Report
from tests.bench.peers.rows import MACHINE, Row

_TEMPLATE = Path(__file__).parent / "benchmark.md.in"
_OURS = "our "
# Measures that are drawn, by the names of their pictures.
_DRAWN = {
    "first-event": (launches.PART, "one at a time: first event"),
    "tasks": (launches.TASKS, launches.NO_OPS),
    "runs": (launches.TASKS, launches.RUNS),
    "sensor": (round_trips.PART, "sensor tick"),
}


def write(path: Path, report: Report) -> None:
    """Write the page, and its plots into the directory ``pictures`` beside it."""
    measures = table.grouped(report.rows)
    pictures = path.parent / "pictures"
    for name, key in _DRAWN.items():
        members = measures.get(key, [])
        if any(row.median is not None for row in members):
            svg = bars(f"{key[0]}: {key[1]}", members)
            (pictures / f"benchmark-{name}.svg").write_text(svg)
    path.write_text(text(report))


def text(report: Report) -> str:
    """Return the whole page."""
    measures = table.grouped(report.rows)
    return Template(_TEMPLATE.read_text()).substitute(
        extent=report.extent,
        machine=_listed(report.machine),
        versions=_listed(report.versions),
        lost="\n".join(lost(measures.values())) or "Nowhere in this session.",
        tables="\n\n".join(_section(key, members) for key, members in measures.items()),
    )


def lost(measures: Iterable[Sequence[Row]]) -> list[str]:
    """Return a line for each measure in which somebody else is better than the best of ours."""
    lines = []
    for members in measures:
        ranked = [row for row in members if row.median is not None]
        ours = [row for row in ranked if row.contestant.startswith(_OURS)]
        if not ours or ranked[0] is ours[0] or ours[0].part == MACHINE:
            continue
        *_, times = table.cells(ours[0], ranked[0].median)
        best = f"{ranked[0].part}, {ranked[0].measure}"
        needs = f"{times} times as much" if times else f"{ours[0].median:g} instead of 0"
        lines.append(f"* {best}: {ranked[0].contestant} is better, {ours[0].contestant} {needs}")
    return lines


def _section(key: tuple[str, str], members: Sequence[Row]) -> str:
    part, measure = key
    drawn = {drawn_key: name for name, drawn_key in _DRAWN.items()}
    shown = key in drawn and any(row.median is not None for row in members)
    picture = f"![{measure}](pictures/benchmark-{drawn[key]}.svg)\n\n" if shown else ""
    return f"### {part[0].upper()}{part[1:]}: {measure}\n\n{picture}{table.markdown(members)}"


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
