"""How much is measured: quick enough for every day, or all of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Numbers of runs, tasks, calls and agents, and seconds of looking on."""

    name: str
    singles: int
    burst: int
    task_runs: int
    tasks: int
    steps: int
    calls: int
    events: int
    log_seconds: float
    log_megabytes: int
    idle_seconds: float
    agents: tuple[int, ...]
    load_seconds: float
    tracked: tuple[int, ...]
    simulated_hours: float


QUICK = Extent(
    name="quick",
    singles=5,
    burst=12,
    task_runs=12,
    tasks=100,
    steps=10,
    calls=30,
    events=100,
    log_seconds=5,
    log_megabytes=8,
    idle_seconds=15,
    agents=(1, 10, 100),
    load_seconds=4,
    tracked=(0, 100),
    simulated_hours=0.5,
)
FULL = Extent(
    name="full",
    singles=30,
    burst=200,
    task_runs=1000,
    tasks=1000,
    steps=1000,
    calls=300,
    events=1000,
    log_seconds=30,
    log_megabytes=64,
    idle_seconds=120,
    agents=(1, 10, 100),
    load_seconds=30,
    tracked=(0, 1000, 10_000),
    simulated_hours=24,
)
