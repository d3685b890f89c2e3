"""The tables of docs/metrics.md, and the rows of ``hpc-agent metrics list``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpc_agent.metrics.agent import AGENT
from hpc_agent.metrics.gateway import GATEWAY
from hpc_agent.metrics.metric import Metric

ALERTS = Path(__file__).parent.parent / "templates" / "monitoring" / "alerts.yml"

_PROGRAMS = {"Agent": AGENT, "Gateway": GATEWAY}


def rows() -> list[dict[str, str]]:
    """Return one row for each metric."""
    return [
        {
            "metric": metric.name,
            "kind": metric.kind.value,
            "labels": ", ".join(metric.labels),
            "about": metric.about,
        }
        for catalogue in _PROGRAMS.values()
        for metric in catalogue
    ]


def markdown() -> str:
    """Return a table for each program."""
    return "\n\n".join(
        f"## {program}\n\n{_table(catalogue)}" for program, catalogue in _PROGRAMS.items()
    )


def _table(metrics: Iterable[Metric]) -> str:
    lines = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    lines += [
        f"| `{metric.name}` | {metric.kind} | "
        f"{', '.join(f'`{label}`' for label in metric.labels)} | {metric.about} |"
        for metric in metrics
    ]
    return "\n".join(lines)
