"""The figures as bars: SVG that is the same, byte for byte, for the same rows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tests.bench.peers.rows import Row

_WIDTH_INCHES = 7.0
_BAR_INCHES = 0.34
_EDGE_INCHES = 1.0


def bars(title: str, members: Sequence[Row]) -> str:
    """Return the medians of one measure, the best at the top, with lines up to the p95."""
    shown = [row for row in members if row.median is not None]
    height = _EDGE_INCHES + _BAR_INCHES * len(shown)
    figure: Any = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    axes = figure.add_subplot()
    medians = [row.median or 0.0 for row in shown]
    above = [
        max((row.p95 or 0.0) - median, 0.0) for row, median in zip(shown, medians, strict=True)
    ]
    colours = ["#2a6f97" if row.contestant.startswith("our ") else "#a9a9a9" for row in shown]
    axes.barh(range(len(shown)), medians, xerr=[[0.0] * len(shown), above], color=colours)
    axes.set_yticks(range(len(shown)), [row.contestant for row in shown])
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set_xlabel(shown[0].unit)
    axes.spines[["top", "right"]].set_visible(False)
    written = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    # Ids are made of the salt and the content, and no date is written.
    with mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none"}):
        canvas.print_svg(written, metadata={"Date": None})
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"
