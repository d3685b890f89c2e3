"""Names and labels as Prometheus wants them (prometheus.io/docs/practices/naming)."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from hpc_agent.metrics.agent import AGENT
from hpc_agent.metrics.gateway import GATEWAY
from hpc_agent.metrics.metric import Kind, Metric

METRICS = [*AGENT, *GATEWAY]
UNITS = ("_seconds", "_bytes")
# What there may be any number of.
UNBOUNDED = re.compile(r"id|key|run|node|path|user|message|reason_text")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metric_has_a_good_name(metric: Metric) -> None:
    """Base units, _total for what only grows, and labels that are bounded."""
    assert re.fullmatch(r"hpc_(agent|gateway)(_[a-z]+)+", metric.name)
    assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total")
    if metric.kind is Kind.HISTOGRAM:
        assert metric.name.endswith(UNITS)
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert metric.buckets
    assert not re.search(r"_(ms|milliseconds|minutes|hours|mb|kb|percent)(_|$)", metric.name)
    assert not any(UNBOUNDED.fullmatch(label) for label in metric.labels)
    assert metric.about.endswith(".")


def test_no_name_is_used_twice() -> None:
    """Across both programs, and the series of histograms too."""
    series = Counter(name for metric in METRICS for name in metric.series)
    assert [name for name, times in series.items() if times > 1] == []
