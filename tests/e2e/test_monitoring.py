"""What operators watch tells what has happened: metrics of agent and gateway, and their logs."""

from __future__ import annotations

import pytest

from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from tests.metrics.scrape import Scraped, scraped

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]


def agent(stack: Stack) -> Scraped:
    """Read the agent's metrics."""
    return scraped(str(stack.config.metrics.listen))


def gateway(stack: Stack) -> Scraped:
    """Read the gateway's."""
    return scraped(f"unix:{stack.directories.local}/gateway-metrics.sock")


def test_metrics_follow_a_run(stack: Stack) -> None:
    """From the request to the end of the job, in numbers of both programs."""
    before, at_gateway = agent(stack), gateway(stack)
    run_id = stack.webserver.launch("example", "sleepy_job")
    assert stack.wait_finished(run_id) == "SUCCESS"
    ended = {"kind": "run_worker", "location": "example", "outcome": "COMPLETED"}
    wait_for(
        "the run's job is counted",
        lambda: (
            agent(stack).value("hpc_agent_jobs_ended_total", **ended)
            > before.value("hpc_agent_jobs_ended_total", **ended)
        ),
        seconds=60,
        alive=[stack.agent],
    )
    after, gateway_after = agent(stack), gateway(stack)

    def grew(name: str, **labels: str) -> bool:
        return after.value(name, **labels) > before.value(name, **labels)

    assert grew("hpc_agent_job_queue_seconds_count", kind="run_worker")
    assert grew("hpc_agent_job_run_seconds_count", kind="run_worker")
    assert grew("hpc_agent_request_duration_seconds_count", api="LAUNCH_RUN", outcome="submitted")
    assert grew("hpc_agent_scheduler_call_duration_seconds_count", command="sbatch", outcome="ok")
    assert grew("hpc_agent_relay_request_duration_seconds_count", operation="graphql", status="200")
    assert grew("hpc_agent_relay_received_bytes_total", operation="graphql")
    assert grew("hpc_agent_store_transaction_duration_seconds_count")
    assert grew("hpc_agent_loop_last_success_timestamp_seconds", loop="watch")
    assert after.value("hpc_agent_loop_last_success_timestamp_seconds", loop="heartbeat") > 0
    assert after.value("hpc_agent_code_servers", location="example", status="serving") == 1
    assert after.value("hpc_agent_jobs", kind="code_server", phase="running", state="RUNNING") >= 1
    assert after.value("hpc_agent_relay_connections", known="yes") >= 1
    assert after.value("hpc_agent_outgoing_messages", state="set_aside") == 0
    assert after.value("hpc_agent_relay_certificate_expiry_timestamp_seconds") > 0

    assert gateway_after.value("hpc_gateway_events_stored_total") > at_gateway.value(
        "hpc_gateway_events_stored_total"
    )
    assert gateway_after.value("hpc_gateway_agents_connected") >= 1
    assert gateway_after.value("hpc_gateway_child_starts_total", program="daemon") >= 1
    polls = "userCloudAgent.popUserCloudAgentRequests"
    counted = gateway_after.value("hpc_gateway_request_duration_seconds_count", operation=polls)
    assert counted > 0
    assert run_id not in str(after.samples) + str(gateway_after.samples)
