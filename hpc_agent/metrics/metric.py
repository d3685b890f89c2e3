"""What a metric is called, what it counts, and by what it is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

Buckets = tuple[float, ...]

CALL_SECONDS: Buckets = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TRANSACTION_SECONDS: Buckets = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
# From what a short queue takes to a week.
JOB_SECONDS: Buckets = (5, 15, 60, 300, 900, 3600, 10_800, 43_200, 86_400, 259_200, 604_800)


class Kind(StrEnum):
    """Kinds of metrics, as Prometheus has them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric; ``labels`` never name what there may be any number of, such as runs."""

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    buckets: Buckets = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus stores it."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "count", "sum"))
        return (self.name,)


class Catalogue:
    """All metrics of one program, in the order in which they are documented."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._metrics: list[Metric] = []

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._metrics)

    def counter(self, name: str, about: str, *labels: str) -> Metric:
        """Add a number that only grows; its name ends with ``_total``."""
        return self._add(Metric(name=name, kind=Kind.COUNTER, about=about, labels=labels))

    def gauge(self, name: str, about: str, *labels: str) -> Metric:
        """Add a number that is as it is when it is read."""
        return self._add(Metric(name=name, kind=Kind.GAUGE, about=about, labels=labels))

    def histogram(self, name: str, about: str, *labels: str, buckets: Buckets) -> Metric:
        """Add a distribution; ``buckets`` are upper bounds in the unit that the name ends with."""
        return self._add(
            Metric(name=name, kind=Kind.HISTOGRAM, about=about, labels=labels, buckets=buckets)
        )

    def _add(self, metric: Metric) -> Metric:
        named = Metric(
            name=f"{self._prefix}_{metric.name}",
            kind=metric.kind,
            about=metric.about,
            labels=metric.labels,
            buckets=metric.buckets,
        )
        self._metrics.append(named)
        return named
