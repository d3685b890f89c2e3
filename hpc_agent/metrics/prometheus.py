"""A meter that remembers, and its text for Prometheus; the one user of prometheus_client.

Imported where metrics are switched on only: it costs 0.1 s.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from hpc_agent import __version__
from hpc_agent.metrics.meter import Reading
from hpc_agent.metrics.metric import Kind, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_SERIES = 200
"""Combinations of labels that a metric may have: a site may have any number of locations."""

OTHER = "other"

# One more series for each, with nothing but the time at which it began to count.
disable_created_metrics()  # type: ignore[no-untyped-call]


class PrometheusMeter:
    """Counts what a program's catalogue has, and nothing else."""

    def __init__(self, catalogue: Iterable[Metric]) -> None:
        """Begin with all at zero. The process's memory, CPU time and descriptors come along."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._series: dict[str, set[tuple[str, ...]]] = {}
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in catalogue:
            self._series[metric.name] = set()
            if metric.kind is Kind.COUNTER:
                self._counters[metric.name] = Counter(
                    metric.name, metric.about, metric.labels, registry=self._registry
                )
            elif metric.kind is Kind.HISTOGRAM:
                self._histograms[metric.name] = Histogram(
                    metric.name, metric.about, metric.labels, buckets=metric.buckets,
                    registry=self._registry,
                )  # fmt: skip

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Add to a counter."""
        counter = self._counters[metric.name]
        (counter.labels(*self._bounded(metric, labels)) if labels else counter).inc(amount)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a value to a histogram."""
        histogram = self._histograms[metric.name]
        (histogram.labels(*self._bounded(metric, labels)) if labels else histogram).observe(value)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Let a gauge have a value; one that is never set is not shown."""
        gauge = self._gauges.get(metric.name)
        if gauge is None:
            gauge = Gauge(metric.name, metric.about, metric.labels, registry=self._registry)
            self._gauges[metric.name] = gauge
        (gauge.labels(*self._bounded(metric, labels)) if labels else gauge).set(value)

    def text(self, readings: Iterable[Reading]) -> bytes:
        """Return all of it, and what was read of gauges just now."""
        return generate_latest(_Scrape(self._registry, readings))

    def _bounded(self, metric: Metric, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the labels, or one common set of them where there are too many."""
        known = self._series[metric.name]
        if labels in known:
            return labels
        if len(known) >= MOST_SERIES:
            return (OTHER,) * len(labels)
        known.add(labels)
        return labels


class _Scrape:
    """What one answer consists of; readings of one series add up."""

    def __init__(self, registry: CollectorRegistry, readings: Iterable[Reading]) -> None:
        self._registry = registry
        self._readings = readings

    def collect(self) -> Iterator[Family]:
        yield from self._registry.collect()
        found: dict[Metric, dict[tuple[str, ...], float]] = {}
        for reading in self._readings:
            values, labels = found.setdefault(reading.metric, {}), reading.labels
            if labels not in values and len(values) >= MOST_SERIES:
                labels = (OTHER,) * len(labels)
            values[labels] = values.get(labels, 0.0) + reading.value
        for metric, values in found.items():
            family = GaugeMetricFamily(metric.name, metric.about, labels=metric.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


def build_reading(metric: Metric) -> Reading:
    """Return what says which release runs, on which Python."""
    return Reading(metric, 1, (__version__, platform.python_version()))
