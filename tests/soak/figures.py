"""What a process takes, and what it may take more of at the end than at the beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

# Memory that Python has taken once it seldom gives back: what counts is that it does not grow.
_SLACK = {"descriptors": 8, "threads": 4, "memory_mb": 12.0, "disk_mb": 4.0}

# Strangers from one address (each is a descriptor, and a thread on the node), and all the rest.
_STRANGERS, _OTHERS = 64, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A process under attack, and where it writes.

    ``pool``: threads that it may come to have, each with a descriptor or so, for work of its own.
    """

    name: str
    pid: int
    directories: tuple[Path, ...]
    pool: int = 0

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


def excess(figures: Figures, *, known: int) -> list[str]:
    """Name what is more than it may ever be, with so many connections that have shown a token."""
    most = _STRANGERS + _OTHERS + known
    return [
        f"{name}: {getattr(figures, name)} > {most}"
        for name in ("descriptors", "threads")
        if getattr(figures, name) > most
    ]


def growth(first: Figures, last: Figures, *, pool: int) -> list[str]:
    """Name what has grown beyond its slack."""
    pooled = {"descriptors": pool, "threads": pool}
    return [
        f"{name}: {getattr(first, name):.0f} → {getattr(last, name):.0f}"
        for name, slack in _SLACK.items()
        if getattr(last, name) > getattr(first, name) + slack + pooled.get(name, 0)
    ]


def table(name: str, looks: Sequence[tuple[str, Figures]]) -> str:
    """Return one process's looks as a table."""
    heads = [each.name for each in fields(Figures)]
    lines = [f"{name:<22}" + "".join(f"{head:>13}" for head in heads)]
    for when, figures in looks:
        values = "".join(f"{getattr(figures, head):>13.1f}" for head in heads)
        lines.append(f"  {when:<20}{values}")
    return "\n".join(lines)
