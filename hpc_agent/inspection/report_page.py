"""A report as one HTML file that needs nothing else: tables, and plots as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from hpc_agent.errors import UsageError
from hpc_agent.inspection.usage_report import Summary, UsageReport

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_SIZE_INCHES = (9.0, 2.6)
_DAYS_NAMED = 30  # more names than these would lie over each other


def page(report: UsageReport) -> str:
    """Return the page. Raises UsageError where the library that draws is not installed."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text())
    return template.render(
        report=report, day=_day, plots=_plots(report), share=_share, number=_number
    )


def _plots(report: UsageReport) -> dict[str, str]:
    days = report.by_day
    return {
        "Jobs a day": _bars(
            days,
            [
                ("completed or cancelled", lambda each: each.jobs - each.failed),
                ("failed", lambda each: each.failed),
            ],
        ),
        "Node hours a day": _bars(days, [("node hours", lambda each: _or_gap(each.node_hours))]),
        "Median wait in the queue, minutes": _bars(
            days, [("minutes", lambda each: _or_gap(each.wait_median) / 60)]
        ),
        "CPU efficiency, %": _bars(days, [("%", lambda each: _or_gap(each.cpu_efficiency) * 100)]),
    }


def _bars(days: Sequence[Summary], series: Sequence[tuple[str, Callable[[Summary], float]]]) -> str:
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "report --html draws with matplotlib, which is not installed here: "
            "`pip install 'dagster-hpc-agent[report]'`, or leave --html out"
        ) from None
    figure: Any = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    below = [0.0] * len(days)
    for name, value in series:
        heights = [value(each) for each in days]
        axes.bar(range(len(days)), heights, bottom=below, label=name)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.spines[["top", "right"]].set_visible(False)
    named = range(0, len(days), 1 + len(days) // _DAYS_NAMED)
    axes.set_xticks(named, [days[at].name for at in named], rotation=45)
    if len(series) > 1:
        axes.legend(frameon=False)
    written = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(written, metadata={"Date": None})
    return written.getvalue().partition("<svg")[1] + written.getvalue().partition("<svg")[2]


def _or_gap(value: float | None) -> float:
    """What is not known has no bar, which is something else than a bar of no height."""
    return math.nan if value is None else value


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"
