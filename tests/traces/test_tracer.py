"""Spans on their way to a collector."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from hpc_agent.traces.otlp import OtlpTracer
from hpc_agent.traces.span import Span, span_id, trace_id, trace_name
from tests.traces.collector import collecting

CHILD = Span(
    name="queue", trace="run r", key="worker w queue", parent="worker w", began_at=1000.25,
    ended_at=1002.5, attributes={"slurm.job_id": "17_3", "slurm.restart_count": 0, "nobody": None},
    error="TIMEOUT",
)  # fmt: skip
PARENT = Span(name="job", trace="run r", key="worker w", began_at=1000, ended_at=1001)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has no OpenTelemetry variables but these."""
    inherited = {name: each for name, each in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_span_arrives_as_it_was() -> None:
    """With times, attributes, what went wrong, and the parent that nobody handed on."""
    with collecting() as collector:
        tracer = OtlpTracer(f"{collector.url}/", service="hpc-agent", instance="one")
        for span in (CHILD, PARENT):
            tracer.add(span)
        tracer.close()

    (child,), (parent,) = collector.named("queue"), collector.named("job")
    assert collector.paths == {"/v1/traces"}
    assert (child.service, child.began_at, child.ended_at) == ("hpc-agent", 1000.25, 1002.5)
    assert child.attributes == {"slurm.job_id": "17_3", "slurm.restart_count": 0}
    assert (child.error, parent.error) == ("TIMEOUT", "")
    assert (child.trace, child.parent) == (parent.trace, parent.id)
    assert parent.parent == ""


def test_ids_are_the_same_in_another_process() -> None:
    """Gateway and agent speak of one trace, and an agent goes on with those of its earlier life."""
    code = "from hpc_agent.traces.span import *; print(trace_id('run r'), span_id('worker w'))"

    assert run(code).stdout.split() == [str(trace_id("run r")), str(span_id("worker w"))]


def test_all_that_is_about_one_run_is_one_trace() -> None:
    """Its launch and its termination; what is about no run has a trace of its own."""
    assert trace_name("r", "launch") == trace_name("r", "termination")
    assert trace_name(None, "a") != trace_name(None, "b")


def test_collector_that_hangs_holds_up_nobody() -> None:
    """Neither who adds spans, nor for long the end of the program."""
    with collecting() as collector:
        collector.hangs = threading.Event()
        tracer = OtlpTracer(collector.url, service="hpc-agent", instance="one")
        started = time.monotonic()
        for _ in range(5000):
            tracer.add(PARENT)
        added = time.monotonic()
        tracer.close()
        closed = time.monotonic()
        collector.hangs.set()

    assert added - started < 5
    assert closed - added < 20


def test_nothing_is_loaded_where_traces_are_off() -> None:
    """Neither by the agent nor by the gateway's modules: it is memory on a login node."""
    code = (
        "import sys, hpc_agent.agent.daemon\n"
        "from hpc_agent.traces.tracer import SILENT, tracer_for\n"
        "assert tracer_for(None, service='s', instance='i') is SILENT\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )

    assert run(code).stdout.strip() == "[]"


def test_variable_of_opentelemetry_switches_them_on() -> None:
    """As in any other program that has OpenTelemetry."""
    code = (
        "from hpc_agent.traces.tracer import *\n"
        "from hpc_agent.traces.span import Span\n"
        "tracer = tracer_for(None, service='s', instance='i')\n"
        "tracer.add(Span(name='n', trace='t', key='k', began_at=1, ended_at=2))\n"
        "tracer.close()"
    )
    with collecting() as collector:
        done = run(code, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)

    assert done.stderr == ""
    assert [span.name for span in collector.spans] == ["n"]


def test_missing_extra_is_said() -> None:
    """Where an endpoint was asked for it is an error; a variable may be for other programs."""
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from hpc_agent.errors import ConfigError\n"
        "from hpc_agent.traces.tracer import *\n"
        "assert tracer_for(None, service='s', instance='i') is SILENT\n"
        "try:\n"
        "    tracer_for('http://127.0.0.1:1', service='s', instance='i')\n"
        "except ConfigError as error:\n"
        "    print(error)"
    )

    done = run(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")

    assert "pip install 'dagster-hpc-agent[otel]'" in done.stdout
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set, but" in done.stderr
