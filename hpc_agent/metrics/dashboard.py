"""The Grafana dashboard, as ``hpc-agent metrics dashboard`` prints it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hpc_agent.metrics import agent, gateway
from hpc_agent.metrics.metric import Metric

_WIDTH, _HEIGHT, _ACROSS = 8, 7, 3
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_HERE = 'instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: each query with its legend; ``unit`` as Grafana names it."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    stacked: bool = False


def quantiles(metric: Metric, *by: str) -> dict[str, str]:
    """Return queries of the median, and of what one in twenty exceeds."""
    names = ", ".join((*by, "le"))
    rate = f"sum by ({names}) (rate({metric.name}_bucket{{{_HERE}}}[$__rate_interval]))"
    legend = " ".join(f"{{{{{name}}}}}" for name in by)
    return {
        f"{legend} {word}".strip(): f"histogram_quantile({part}, {rate})"
        for word, part in (("median", 0.5), ("p95", 0.95))
    }


def rates(metric: Metric, *by: str, suffix: str = "") -> dict[str, str]:
    """Return the query of how often each second."""
    legend = " ".join(f"{{{{{name}}}}}" for name in by)
    rate = f"rate({metric.name}{suffix}{{{_HERE}}}[$__rate_interval])"
    return {legend or "all": f"sum by ({', '.join(by)}) ({rate})"}


def values(metric: Metric, *by: str) -> dict[str, str]:
    """Return the query of a gauge as it is."""
    legend = " ".join(f"{{{{{name}}}}}" for name in by)
    return {legend or "now": f"sum by ({', '.join(by)}) ({metric.name}{{{_HERE}}})"}


def ages(metric: Metric, *by: str) -> dict[str, str]:
    """Return the query of how long ago a moment was."""
    legend = " ".join(f"{{{{{name}}}}}" for name in by)
    return {legend or "ago": f"time() - max by ({', '.join(by)}) ({metric.name}{{{_HERE}}})"}


_ROWS: dict[str, tuple[Panel, ...]] = {
    "Jobs": (
        Panel("Jobs by state", values(agent.JOBS, "state"), stacked=True),
        Panel("Jobs by location", values(agent.JOBS, "location", "kind"), stacked=True),
        Panel("Jobs that ended", rates(agent.JOBS_ENDED, "outcome"), "ops", stacked=True),
        Panel("Wait in the queue", quantiles(agent.JOB_QUEUE_SECONDS, "kind"), "s"),
        Panel("Run time", quantiles(agent.JOB_RUN_SECONDS, "kind"), "s"),
        Panel("Code servers", values(agent.CODE_SERVERS, "status"), stacked=True),
    ),
    "Pools of warm workers": (
        Panel("Slots", values(agent.POOL_SLOTS, "pool", "state"), stacked=True),
        Panel("Wait for a slot", values(agent.POOL_WAITING, "pool")),
        Panel(
            "Allocations",
            {
                "{{pool}}": values(agent.POOL_ALLOCATIONS, "pool")["{{pool}}"],
                "{{pool}} is stopped": values(agent.POOL_STOPPED, "pool")["{{pool}}"],
            },
        ),
    ),
    "Agent": (
        Panel("Requests", rates(agent.REQUESTS, "api", "outcome", suffix="_count"), "reqps"),
        Panel("Requests take", quantiles(agent.REQUESTS, "api"), "s"),
        Panel("Oldest request", values(agent.REQUESTS_OLDEST), "s"),
        Panel(
            "Held back by operators",
            {
                "{{location}} is paused": values(agent.PAUSED, "location")["{{location}}"],
                "drains": values(agent.DRAINING)["now"],
            },
        ),
        Panel(
            "Calls of Slurm",
            rates(agent.SCHEDULER_CALLS, "command", "outcome", suffix="_count"),
            "ops",
        ),
        Panel("Calls of Slurm take", quantiles(agent.SCHEDULER_CALLS, "command"), "s"),
        Panel("Loops: since the last success", ages(agent.LOOP_SUCCESS, "loop"), "s"),
        Panel("Messages that wait", values(agent.OUTGOING, "queue", "state")),
        Panel("Oldest message", values(agent.OUTGOING_OLDEST, "queue"), "s"),
        Panel("Store transactions take", quantiles(agent.STORE_TRANSACTIONS), "s"),
    ),
    "Relay": (
        Panel(
            "Requests of jobs",
            rates(agent.RELAY_REQUESTS, "operation", "status", suffix="_count"),
            "reqps",
        ),
        Panel("Requests of jobs take", quantiles(agent.RELAY_REQUESTS, "operation"), "s"),
        Panel("Connections", values(agent.RELAY_CONNECTIONS, "known"), stacked=True),
        Panel("Bytes from jobs", rates(agent.RELAY_RECEIVED, "operation"), "Bps"),
        Panel("Bytes to jobs", rates(agent.RELAY_SENT, "operation"), "Bps"),
        Panel("Turned away", rates(agent.RELAY_TURNED_AWAY), "ops"),
    ),
    "Gateway": (
        Panel("Agents: since the last heartbeat", ages(gateway.AGENT_HEARTBEAT, "agent"), "s"),
        Panel("Requests to agents", values(gateway.REQUESTS, "state"), stacked=True),
        Panel("Oldest request to an agent", values(gateway.REQUESTS_OLDEST, "state"), "s"),
        Panel(
            "Calls of the agent API",
            rates(gateway.API_REQUESTS, "operation", "status", suffix="_count"),
            "reqps",
        ),
        Panel("Events stored", rates(gateway.EVENTS_STORED), "ops"),
        Panel("Event writes take", quantiles(gateway.EVENT_WRITES), "s"),
        Panel("Database takes", quantiles(gateway.DATABASE_TRANSACTIONS, "kind"), "s"),
        Panel("Bytes received", rates(gateway.API_RECEIVED, "operation"), "Bps"),
        Panel(
            "Refused callers", rates(gateway.AUTHENTICATION_FAILURES, "listener", "reason"), "ops"
        ),
    ),
    "Processes": (
        Panel(
            "Event loops are late by",
            {
                f"{program} p99": f"histogram_quantile(0.99, sum by (le) (rate("
                f"{metric.name}_bucket{{{_HERE}}}[$__rate_interval])))"
                for program, metric in (
                    ("agent", agent.EVENT_LOOP_LAG),
                    ("gateway", gateway.EVENT_LOOP_LAG),
                )
            },
            "s",
        ),
        Panel(
            "Memory", {"{{job}} {{instance}}": f"process_resident_memory_bytes{{{_HERE}}}"}, "bytes"
        ),
        Panel(
            "CPU",
            {
                "{{job}} {{instance}}": "rate(process_cpu_seconds_total"
                f"{{{_HERE}}}[$__rate_interval])"
            },
            "percentunit",
        ),
    ),
}


def dashboard() -> str:
    """Return it as JSON, for Grafana 10 and later."""
    content = {
        "title": "hpc-agent",
        "uid": "hpc-agent",
        "tags": ["dagster", "slurm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _panels(),
    }
    return json.dumps(content, indent=1)


def _variables() -> list[dict[str, Any]]:
    instances = (
        f'label_values({{__name__=~"{agent.BUILD_INFO.name}|{gateway.BUILD_INFO.name}"}}, instance)'
    )
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance",
            "label": "Instance",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": instances, "refId": "instances"},
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in _ROWS.items():
        place = {"x": 0, "y": top, "w": _WIDTH * _ACROSS, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place})
        top += 1
        for number, panel in enumerate(row):
            down, across = divmod(number, _ACROSS)
            place = {"x": across * _WIDTH, "y": top + down * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_graph(panel)})
        top += -(-len(row) // _ACROSS) * _HEIGHT
    return panels


def _graph(panel: Panel) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 10, "showPoints": "never"}
    if panel.stacked:
        custom |= {"fillOpacity": 40, "stacking": {"mode": "normal"}}
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": custom},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": query.replace("sum by () ", "sum ").replace("max by () ", "max "),
                "legendFormat": legend,
            }
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }
