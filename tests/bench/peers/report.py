"""What one session has measured, on which machine and with which versions: as a value and JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.bench.peers import environment
from tests.bench.peers.rows import Row, from_json, to_json

_OURS = ("dagster-hpc-agent", "dagster", "dagster-cloud", "grpcio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The rows, and what a reader must know to judge them; no name of any machine."""

    extent: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    rows: Sequence[Row]


def report_of(extent: str, rows: Sequence[Row], *, slurm: str, busy: float) -> Report:
    """Return the report of a session on this machine."""
    memory = psutil.virtual_memory().total / 2**30
    return Report(
        extent=extent,
        machine={
            "cores": str(os.cpu_count()),
            "memory": f"{memory:.0f} GiB",
            "busy before": f"{busy:.1f} processes, the load of the five minutes before",
        },
        versions={
            "Python": platform.python_version(),
            "Slurm": slurm,
            **{name: version(name) for name in _OURS},
            **environment.versions(),
        },
        rows=rows,
    )


def content(report: Report) -> dict[str, Any]:
    """Return a report as it stands in a file."""
    return {
        "extent": report.extent,
        "machine": dict(report.machine),
        "versions": dict(report.versions),
        "rows": to_json(report.rows),
    }


def load(path: Path) -> Report:
    """Read the report of a file."""
    found = json.loads(path.read_text())["peers"]
    return Report(**{**found, "rows": from_json(found["rows"])})
