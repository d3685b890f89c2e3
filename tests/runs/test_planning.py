"""Where a run's job goes that names no partition, as what Slurm tells of them changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpc_agent.cluster.partition_book import PartitionBook
from hpc_agent.config import AgentConfig, parse_config
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import NoPartitionError, SchedulerError, SchedulerUnavailableError
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.runs.planning import plan_attempt
from hpc_agent.slurm.partition_facts import PartitionFacts, PartitionLimits
from hpc_agent.slurm.scheduler import NodeInfo
from hpc_agent.store.database import Store
from tests.agent.conftest import Clock

ORIGIN = {"repository_origin": {"executable_path": "/code/bin/python"}}
RUN = RunToLaunch(
    run_id="r-1", job_name="j", location="here", tags={"dagster-hpc/time": "60"}, code_origin=ORIGIN
)
CPU = PartitionLimits(name="cpu", state="DOWN")
NODE = NodeInfo(name="n1", state="idle", cpus=8, memory_mb=8192, partitions=("cpu", "long"))
LONG = PartitionLimits(name="long", state="UP", max_time_seconds=7200, billing_weights="CPU=9")


@dataclass(slots=True)
class Site:
    """A cluster whose one partition is down, until a test says otherwise."""

    facts: PartitionFacts
    error: SchedulerError | None = None

    async def partition_facts(self) -> PartitionFacts:
        if self.error is not None:
            raise self.error
        return self.facts


@dataclass(frozen=True, slots=True)
class Bench:
    """All that an attempt is planned from."""

    site: Site
    clock: Clock
    book: PartitionBook
    store: Store
    config: AgentConfig

    async def plan(self, overrides: dict[str, str] | None = None) -> JobPlan:
        return await plan_attempt(
            self.store,
            self.config,
            RUN,
            deployment="prod",
            overrides=overrides,
            partitions=self.book,
        )


def partition(plan: JobPlan) -> str:
    return next(each.value for each in plan.settings if each.option == "partition")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    content = {"control_plane": {"url": "https://x"}, "work_dir": "/work"}
    site, clock = Site(PartitionFacts(user="jane", partitions=[CPU], nodes=[NODE])), Clock()
    store = Store(tmp_path / "home")
    await store.open()
    config = parse_config(content, source="test")
    yield Bench(site, clock, PartitionBook(site, clock), store, config)
    await store.close()


async def test_run_that_fits_nowhere_is_looked_at_anew(bench: Bench) -> None:
    """An administrator may have opened a partition meanwhile; that is asked once a minute."""
    for seconds in (0, 30):
        bench.clock.now += seconds
        with pytest.raises(NoPartitionError, match="cpu: it is DOWN"):
            await bench.plan()
        bench.site.facts = replace(bench.site.facts, partitions=[replace(CPU, state="UP")])
    bench.clock.now += 31
    assert partition(await bench.plan()) == "cpu"


async def test_launch_waits_where_nothing_is_known_of_partitions(bench: Bench) -> None:
    """It is no refusal: the error is one after which the launch is tried again."""
    bench.site.error = SchedulerUnavailableError("scontrol: no answer")
    with pytest.raises(SchedulerUnavailableError):
        await bench.plan()


async def test_further_attempt_that_asks_for_more_gets_a_partition_anew(bench: Bench) -> None:
    """More time than the first partition gives goes to a dearer one."""
    short = replace(CPU, state="UP", max_time_seconds=3600)
    bench.site.facts = replace(bench.site.facts, partitions=[short, LONG])
    assert partition(await bench.plan()) == "cpu"
    assert partition(await bench.plan({"time": "90"})) == "long"
