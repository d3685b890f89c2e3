"""The dashboard and the alert rules ask for metrics that exist, in words that Prometheus takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hpc_agent.cli.metrics import app
from hpc_agent.metrics.agent import AGENT
from hpc_agent.metrics.gateway import GATEWAY
from hpc_agent.metrics.page import ALERTS

MONITORING = Path(__file__).parents[2] / "templates" / "monitoring"
DASHBOARD = MONITORING / "grafana-dashboard.json"
OURS = re.compile(r"hpc_(?:agent|gateway)_\w+")
SERIES = {name for metric in (*AGENT, *GATEWAY) for name in metric.series}
DOCUMENT = Path(__file__).parents[2] / "docs" / "monitoring.md"


def queries() -> list[str]:
    """Return all queries of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def alerts() -> list[dict[str, str]]:
    """Return all alert rules."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's own checker; in Debian in the package prometheus."""
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI installs promtool")
        pytest.skip("no promtool here")
    return found


def test_dashboard_is_the_one_that_is_printed() -> None:
    """`hpc-agent metrics dashboard > templates/monitoring/grafana-dashboard.json` renews it."""
    printed = CliRunner().invoke(app, ["dashboard"], catch_exceptions=False).output
    assert printed == DASHBOARD.read_text()


def test_panels_lie_side_by_side() -> None:
    """None over another, each with an id of its own and with queries."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["type"] == "row" or panel["targets"] for panel in panels)


def test_every_metric_that_is_asked_for_exists() -> None:
    """With its labels; what is renamed is renamed here too."""
    asked = {name for query in queries() for name in OURS.findall(query)}
    asked |= {name for rule in alerts() for name in OURS.findall(rule["expr"])}
    assert asked - SERIES == set()
    labels = {label for metric in (*AGENT, *GATEWAY) for label in metric.labels}
    known = labels | {"instance", "job", "le", "__name__"}
    for query in [*queries(), *(rule["expr"] for rule in alerts())]:
        grouped = re.findall(r"(?:by|on) \(([^)]*)\)", query)
        used = {name.strip() for names in grouped for name in names.split(",")}
        used |= set(re.findall(r"(\w+)(?:=|!=|=~)\"", query))
        assert used - known == set(), query


def test_metrics_are_seen_somewhere() -> None:
    """What nobody looks at need not be counted."""
    shown = "".join([*queries(), *(rule["expr"] for rule in alerts()), DASHBOARD.read_text()])
    unseen = {metric.name for metric in (*AGENT, *GATEWAY) if metric.name not in shown}
    assert unseen == {"hpc_agent_requests_open", "hpc_gateway_agents_connected"} | {
        name for name in unseen if name.endswith("sent_bytes_total")
    }


def test_alerts_say_what_to_do_and_are_documented() -> None:
    """For whoever is woken up by one."""
    document = DOCUMENT.read_text()
    for rule in alerts():
        assert rule["annotations"]["summary"]  # type: ignore[index]
        assert rule["annotations"]["action"]  # type: ignore[index]
        assert f"`{rule['alert']}`" in document, rule["alert"]
    printed = CliRunner().invoke(app, ["alerts"], catch_exceptions=False).output
    assert printed == ALERTS.read_text()


def test_prometheus_takes_the_rules(promtool: str) -> None:
    """Its own checker."""
    done = subprocess.run(
        [promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


# What happens, as series of promtool (unit testing for rules), and which alert follows.
HAPPENINGS = {
    "HpcAgentSchedulerAway": {
        'hpc_agent_scheduler_call_duration_seconds_count{outcome="ok"}': "5+0x60",
        'hpc_agent_scheduler_call_duration_seconds_count{outcome="failed"}': "0+1x60",
    },
    "HpcAgentControlPlaneAway": {
        'hpc_agent_loop_last_success_timestamp_seconds{loop="poll"}': "0+0x60",
        'hpc_agent_loop_last_success_timestamp_seconds{loop="heartbeat"}': "0+60x60",
    },
    "HpcAgentJobsFail": {
        'hpc_agent_jobs_ended_total{kind="run_worker",location="a",outcome="FAILED"}': "0+1x60",
        'hpc_agent_jobs_ended_total{kind="run_worker",location="a",outcome="COMPLETED"}': "1+0x60",
        'hpc_agent_jobs_ended_total{kind="run_worker",location="b",outcome="COMPLETED"}': "0+1x60",
    },
    "HpcAgentQueueWaitLong": {
        'hpc_agent_job_queue_seconds_bucket{kind="run_worker",location="a",le="10800"}': "0+0x60",
        'hpc_agent_job_queue_seconds_bucket{kind="run_worker",location="a",le="43200"}': "0+1x60",
        'hpc_agent_job_queue_seconds_bucket{kind="run_worker",location="a",le="+Inf"}': "0+1x60",
    },
    "HpcGatewayAgentSilent": {
        'hpc_gateway_agent_last_heartbeat_timestamp_seconds{agent="x",deployment="p"}': "0+0x60",
        'hpc_gateway_agent_last_heartbeat_timestamp_seconds{agent="y",deployment="p"}': "0+60x60",
    },
    "HpcGatewayChildRestarts": {'hpc_gateway_child_starts_total{program="daemon"}': "1+1x60"},
}


@pytest.mark.parametrize("alert", HAPPENINGS)
def test_alert_fires_for_what_it_is_named_after(promtool: str, tmp_path: Path, alert: str) -> None:
    """Once, and for nothing else that is going on."""
    rule = next(each for each in alerts() if each["alert"] == alert)
    test = {
        "rule_files": [str(ALERTS)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in HAPPENINGS[alert].items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                        "eval_time": "59m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (rule["expr"], done.stdout + done.stderr)
