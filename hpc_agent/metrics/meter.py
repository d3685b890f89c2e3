"""How the parts of a program say what they have done; by default nobody listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from hpc_agent.metrics.metric import Metric


class Meter(Protocol):
    """Takes in numbers; cheap, and safe from any thread. Labels come in the metric's order."""

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Add to a counter."""
        ...

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a value to a histogram."""
        ...

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Let a gauge have a value until it is set again."""
        ...


class Silent:
    """A meter that forgets everything: metrics are off."""

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Forget."""

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Forget."""

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Forget."""


SILENT = Silent()


@dataclass(frozen=True, slots=True)
class Reading:
    """A gauge's value as it is found when somebody asks for it."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


@contextmanager
def timed(meter: Meter, metric: Metric, *labels: str) -> Iterator[None]:
    """Observe how long the block takes, however it ends."""
    began = time.perf_counter()
    try:
        yield
    finally:
        meter.observe(metric, time.perf_counter() - began, *labels)
