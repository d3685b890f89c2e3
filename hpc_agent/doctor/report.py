"""The outcome of an examination as rows, for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpc_agent.doctor import checks
from hpc_agent.doctor.examination import Result


def rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return one row for each finding."""
    return [
        {
            "check": result.check.name,
            "partition": result.partition,
            "group": checks.GROUPS[result.check.needs],
            "status": result.finding.status.value,
            "fact": result.finding.fact,
            "advice": result.finding.advice,
        }
        for result in results
    ]
