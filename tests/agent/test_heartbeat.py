"""Heartbeats: what they carry, and how they get through."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster_cloud.api.dagster_cloud_api import AgentHeartbeat, AgentUtilizationMetrics
    from dagster_shared.serdes import deserialize_value, serialize_value

from hpc_agent.agent.context import Context
from hpc_agent.agent.heartbeat import HeartbeatLoop
from hpc_agent.agent.utilization import Utilization
from hpc_agent.config import AgentConfig, ControlPlane, parse_config
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench
from tests.agent.gateway import scripted_gateway
from tests.code_servers.conftest import deployment, entry, make_harbour
from tests.relay.fake_control_plane import Received, Reply

pytestmark = pytest.mark.filterwarnings("ignore")


class Heart:
    """A heartbeat loop with a configuration of its own."""

    def __init__(
        self, bench: Bench, *, spooled: bool = False, api: AgentApi | None = None, **settings: Any
    ) -> None:
        content = bench.context.config.model_dump(mode="json", exclude_none=True) | settings
        self.bench = bench
        self.config: AgentConfig = parse_config(content, source="test")
        self.harbour = make_harbour(
            self.config, bench.context.store, bench.clock, bench.context.preparation
        )
        context = Context(
            config=self.config,
            agent_id="agent",
            store=bench.context.store,
            api=api or bench.context.api,
            scheduler=bench.scheduler,
            preparation=bench.context.preparation,
            changes=bench.context.changes,
            bells=bench.context.bells,
            errors=bench.context.errors,
            clock=bench.clock,
        )
        self.loop = HeartbeatLoop(
            context, self.harbour.fleet, spooled=lambda _: spooled, load=lambda: 3
        )

    async def beat(self) -> dict[str, AgentHeartbeat]:
        """Send heartbeats and return what the last call held, read by the stock type."""
        await self.loop.step()
        return sent(self.bench.control_plane.requests[-1])


def sent(call: Received) -> dict[str, AgentHeartbeat]:
    """Read the heartbeats of a call with the stock type; nothing of them may get lost."""
    beats = {}
    for each in json.loads(call.body)["variables"]["serializedAgentHeartbeats"]:
        text = each["serializedAgentHeartbeat"]
        beats[each["deploymentName"]] = deserialize_value(text, AgentHeartbeat)
        assert json.loads(serialize_value(beats[each["deploymentName"]])) == json.loads(text)
    return beats


async def test_one_for_each_deployment_with_label_queues_and_limits(bench: Bench) -> None:
    """What the agents page of the control plane shows."""
    heart = Heart(
        bench,
        control_plane={"url": bench.control_plane.url, "deployments": ["prod", "test"]},
        label="cluster-a",
        agent_queues={"include_default_queue": False, "additional_queues": ["gpu"]},
        allowed_full_deployment_locations={"prod": ["a"]},
    )
    beats = await heart.beat()
    assert set(beats) == {"prod", "test"}
    beat = beats["prod"]
    assert (beat.agent_id, beat.agent_label, beat.agent_type) == ("agent", "cluster-a", "HpcAgent")
    assert beat.agent_queues_config.queues == ["gpu"]
    assert beat.metadata["allowed_full_deployment_locations"] == {"prod": ["a"]}  # type: ignore[typeddict-item]
    assert bench.control_plane.requests[-1].headers["dagster-cloud-scope"] == "organization"


async def test_code_server_says_what_it_waits_for(bench: Bench) -> None:
    """Also while it is not even submitted."""
    heart = Heart(bench)
    await heart.harbour.reconcile(deployment("prod", entry("a")))
    (server,) = (await heart.beat())["prod"].code_server_heartbeats
    assert server.location_name == "a"
    assert server.server_status.value == "STARTING"
    assert server.error is not None
    assert "waiting to be submitted" in server.error.message


async def test_lost_job_is_a_failed_worker(bench: Bench) -> None:
    """With what happened; a waiting one is healthy."""
    heart = Heart(bench)
    await bench.add("run-1", phase=Phase.QUEUED, job_id="1", state=JobState.PENDING)
    await bench.add("run-2", phase=Phase.LOST, job_id="2", message="nobody knows it")
    statuses = (await heart.beat())["prod"].run_worker_statuses
    assert statuses is not None
    found = {each.run_id: each for each in statuses.statuses}
    assert found["run of run-1"].status_type.value == "RUNNING"
    assert found["run of run-2"].status_type.value == "FAILED"
    assert "nobody knows it" in str(found["run of run-2"].message)


async def test_living_workers_are_told_of_to_whom_they_matter(bench: Bench) -> None:
    """A control plane that acts on failures alone says so; one that does not hears of all."""
    heart = Heart(bench)
    await bench.add("run-1", phase=Phase.QUEUED, job_id="1", state=JobState.PENDING)
    await bench.add("run-2", phase=Phase.LOST, job_id="2")

    async def told(*, failed_alone: bool) -> list[str]:
        """Beat once; this answer counts for the next heartbeat."""
        headers = {"Preference-Applied": "hpc-failed-workers-alone"} if failed_alone else {}
        bench.control_plane.script = lambda _: Reply(headers=headers)
        statuses = (await heart.beat())["prod"].run_worker_statuses
        assert statuses is not None
        return [each.run_id for each in statuses.statuses]

    both = ["run of run-1", "run of run-2"]
    assert await told(failed_alone=True) == both
    assert bench.control_plane.requests[-1].headers["prefer"] == "hpc-failed-workers-alone"
    assert await told(failed_alone=True) == ["run of run-2"]
    assert await told(failed_alone=False) == ["run of run-2"]
    assert await told(failed_alone=False) == both


async def test_lost_job_with_events_on_their_way_is_not_told_of(bench: Bench) -> None:
    """The last of them may say that its run has ended well."""
    heart = Heart(bench, spooled=True)
    await bench.add("run-2", phase=Phase.LOST, job_id="2")
    statuses = (await heart.beat())["prod"].run_worker_statuses
    assert statuses is not None
    assert statuses.statuses == []


async def test_heartbeat_that_is_too_large_is_sent_without_messages(bench: Bench) -> None:
    """An agent with a thousand jobs is not dead."""
    await bench.add("run-1", phase=Phase.QUEUED, job_id="1")
    bench.context.errors.add(bench.clock.now, "an error of the agent")
    statuses = iter([413, 200])
    with scripted_gateway(lambda _: (next(statuses), {"data": {}})) as gateway:
        settings = ControlPlane(url=gateway.url)
        async with AgentApi(settings, token=lambda: "token", agent_id="agent") as api:
            heart = Heart(bench, api=api)
            await heart.harbour.reconcile(deployment("prod", entry("a")))
            await heart.loop.step()
    first, second = gateway.received
    expected = sent(first)["prod"].without_messages_and_errors()
    assert serialize_value(sent(second)["prod"]) == serialize_value(expected)
    (error,) = json.loads(second.body)["variables"]["serializedErrors"]
    assert "too large" in error


async def test_metrics_have_the_stock_shape(bench: Bench) -> None:
    """Only when they are asked for."""
    assert (await Heart(bench).beat())["prod"].get_agent_utilization_metrics() is None
    beat = (await Heart(bench, agent_metrics={"enabled": True}).beat())["prod"]
    metrics = beat.get_agent_utilization_metrics()
    assert metrics is not None
    assert set(metrics) == set(AgentUtilizationMetrics.__annotations__)
    for section in ("container_utilization", "request_utilization"):
        annotation = AgentUtilizationMetrics.__annotations__[section]
        assert set(metrics[section]) == set(annotation.__annotations__)
    assert metrics["request_utilization"]["num_running_requests"] == 3


def write_group(root: Path, **files: str) -> Path:
    root.mkdir(parents=True)
    for name, content in files.items():
        (root / name.replace("__", ".")).write_text(content + "\n")
    return root


def test_metrics_are_those_of_our_own_control_group(tmp_path: Path) -> None:
    """Not of the whole login node; two measurements make a rate."""
    (tmp_path / "membership").write_text("0::/user.slice/me\n")
    root = tmp_path / "cgroup"
    write_group(root, cgroup__controllers="cpu")
    own = write_group(
        root / "user.slice" / "me",
        cpu__stat="usage_usec 2500000\nuser_usec 1",
        cpu__max="200000 100000",
        memory__current="1000",
        memory__max="max",
        memory__stat="anon 1\ninactive_file 300",
    )
    utilization = Utilization(root, tmp_path / "membership")
    first: Any = utilization.measure(10.0, requests=0)["container_utilization"]
    assert (first["cgroup_version"], first["cpu_usage"]) == ("V2", 2.5)
    assert (first["cpu_cfs_quota_us"], first["cpu_cfs_period_us"]) == (200000.0, 100000.0)
    assert (first["memory_usage"], first["memory_limit"]) == (700, None)
    (own / "cpu.stat").write_text("usage_usec 3000000\n")
    second: Any = utilization.measure(70.0, requests=0)["container_utilization"]
    assert (second["cpu_usage"], second["previous_cpu_usage"]) == (3.0, 2.5)
    assert second["previous_measurement_timestamp"] == 10.0


def test_metrics_of_the_first_control_groups(tmp_path: Path) -> None:
    """Version 1 has a directory for each controller."""
    (tmp_path / "membership").write_text("4:cpu,cpuacct:/\n9:memory:/job\n")
    root = tmp_path / "cgroup"
    write_group(root / "cpuacct", cpuacct__usage="1500000000")
    write_group(root / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    write_group(
        root / "memory" / "job",
        memory__usage_in_bytes="100",
        memory__limit_in_bytes="4096",
        memory__stat="total_inactive_file 40",
    )
    found: Any = Utilization(root, tmp_path / "membership").measure(1.0, requests=0)
    container = found["container_utilization"]
    assert (container["cgroup_version"], container["cpu_usage"]) == ("V1", 1.5)
    assert (container["memory_usage"], container["memory_limit"]) == (60, 4096)


def test_metrics_without_control_groups_are_unknown(tmp_path: Path) -> None:
    """No error, no made-up number."""
    found: Any = Utilization(tmp_path, tmp_path / "nothing").measure(1.0, requests=0)
    assert found["container_utilization"]["cpu_usage"] is None
    assert found["container_utilization"]["cgroup_version"] is None
