"""How the parts of a program say what they have done; by default nobody listens."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from hpc_agent.metrics.address import LocalAddress
from hpc_agent.metrics.metric import Metric


@dataclass(frozen=True, slots=True)
class Reading:
    """A gauge's value as it is found when somebody asks for it."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


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

    def text(self, readings: Iterable[Reading]) -> bytes:
        """Return all of it for Prometheus, and what was read of gauges just now."""
        ...


class Silent:
    """A meter that forgets everything: metrics are off."""

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Forget."""

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Forget."""

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Forget."""

    def text(self, readings: Iterable[Reading]) -> bytes:
        """Return nothing."""
        return b""


SILENT = Silent()


def meter_for(address: LocalAddress | None, catalogue: Iterable[Metric]) -> Meter:
    """Return what counts: nothing, unless it is read somewhere."""
    if address is None:
        return SILENT
    from hpc_agent.metrics.prometheus import PrometheusMeter

    return PrometheusMeter(catalogue)


@contextmanager
def timed(meter: Meter, metric: Metric, *labels: str) -> Iterator[None]:
    """Observe how long the block takes, however it ends."""
    began = time.perf_counter()
    try:
        yield
    finally:
        meter.observe(metric, time.perf_counter() - began, *labels)
