"""What a process takes, and what it may take more of at the end than at the beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

# Memory that Python has taken once it seldom gives back: what counts is that it does not grow.
_SLACK = {"descriptors": 8, "threads": 4, "memory_mb": 12.0, "disk_mb": 4.0}

# Of strangers there are 64 from one address; each is a descriptor, and a thread on the node.
_MOST = {"descriptors": 200, "threads": 120}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A process under attack, and where it writes."""

    name: str
    pid: int
    directories: tuple[Path, ...]

    def figures(self) -> Figures:
        process = psutil.Process(self.pid)
        files = (file for each in self.directories for file in each.rglob("*") if file.is_file())
        return Figures(
            descriptors=process.num_fds(),
            threads=process.num_threads(),
            memory_mb=process.memory_info().rss / 2**20,
            disk_mb=sum(file.stat().st_size for file in files) / 2**20,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One look at a process."""

    descriptors: int
    threads: int
    memory_mb: float
    disk_mb: float


def excess(figures: Figures) -> list[str]:
    """Name what is more than it may ever be."""
    return [
        f"{name}: {getattr(figures, name)}"
        for name, most in _MOST.items()
        if getattr(figures, name) > most
    ]


def growth(first: Figures, last: Figures) -> list[str]:
    """Name what has grown beyond its slack."""
    return [
        f"{name}: {getattr(first, name):.0f} → {getattr(last, name):.0f}"
        for name, slack in _SLACK.items()
        if getattr(last, name) > getattr(first, name) + slack
    ]


def table(name: str, looks: Sequence[tuple[str, Figures]]) -> str:
    """Return one process's looks as a table."""
    heads = [each.name for each in fields(Figures)]
    lines = [f"{name:<22}" + "".join(f"{head:>13}" for head in heads)]
    for when, figures in looks:
        values = "".join(f"{getattr(figures, head):>13.1f}" for head in heads)
        lines.append(f"  {when:<20}{values}")
    return "\n".join(lines)
