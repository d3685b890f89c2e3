"""What is counted is what Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from hpc_agent.metrics.meter import Reading
from hpc_agent.metrics.metric import Catalogue
from hpc_agent.metrics.prometheus import MOST_SERIES, OTHER, PrometheusMeter

THINGS = Catalogue("t")
EATEN = THINGS.counter("eaten_total", "What was eaten.")
BY_KIND = THINGS.counter("kinds_total", "The same.", "kind")
WAIT = THINGS.histogram("wait_seconds", "Wait.", "kind", buckets=(1, 10))
LAST = THINGS.gauge("last_timestamp_seconds", "When last.", "kind")
LEFT = THINGS.gauge("left", "What is left.", "kind")

HOSTILE = 'a"b\\c\nd{e="f"}'


def series(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return each sample by its name and label values."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counters_without_labels_begin_at_zero() -> None:
    """Else a rate misses the first event. A gauge that nobody has set is absent."""
    found = series(PrometheusMeter(THINGS).text([]))

    assert found["t_eaten_total", ()] == 0
    assert ("process_resident_memory_bytes", ()) in found
    assert not [name for name, _ in found if name.startswith(("t_last", "t_left"))]
    assert not [name for name, _ in found if name.endswith("_created")]


def test_everything_comes_with_its_labels() -> None:
    """Values of labels come from outside, and stay values."""
    meter = PrometheusMeter(THINGS)
    meter.count(EATEN, amount=2)
    meter.count(BY_KIND, HOSTILE)
    meter.observe(WAIT, 5, "a")
    meter.set(LAST, 7, "a")

    found = series(meter.text([Reading(LEFT, 3, (HOSTILE,)), Reading(LEFT, 4, (HOSTILE,))]))

    assert found["t_eaten_total", ()] == 2
    assert found["t_kinds_total", (HOSTILE,)] == 1
    assert found["t_wait_seconds_bucket", ("a", "1.0")] == 0
    assert found["t_wait_seconds_bucket", ("a", "10.0")] == 1
    assert found["t_wait_seconds_sum", ("a",)] == 5
    assert found["t_last_timestamp_seconds", ("a",)] == 7
    assert found["t_left", (HOSTILE,)] == 7


def test_labels_do_not_grow_without_bounds() -> None:
    """A site may have any number of locations: those beyond a limit are counted together."""
    meter = PrometheusMeter(THINGS)
    for number in range(MOST_SERIES + 50):
        meter.count(BY_KIND, f"kind {number}")
    left = [Reading(LEFT, 1, (f"kind {number}",)) for number in range(MOST_SERIES + 50)]

    found = series(meter.text(left))

    for name in ("t_kinds_total", "t_left"):
        assert found[name, (OTHER,)] == 50
        assert len([each for each, _ in found if each == name]) == MOST_SERIES + 1
