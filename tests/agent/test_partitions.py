"""What is free in the partitions, as the agent finds it out for whoever looks."""

from __future__ import annotations

import asyncio

from hpc_agent.agent.partitions import PartitionsLoop
from hpc_agent.inspection.partitions import read_partitions
from hpc_agent.slurm.scheduler import PartitionInfo
from tests.agent.conftest import Bench

GPU = PartitionInfo(
    name="gpu", available=True, is_default=True, nodes=4, cpus=256, max_time_seconds=None,
    idle_nodes=1, idle_cpus=96,
)  # fmt: skip


async def test_what_is_free_is_kept_and_stays_while_slurm_is_away(bench: Bench) -> None:
    """With the time at which it was so; that nobody answers is no trouble of the agent."""
    loop = PartitionsLoop(bench.context, every_seconds=300)
    bench.scheduler.partition_infos = [GPU]
    assert await loop.step() == 300
    seen_at = bench.clock.now
    bench.clock.now += 300
    bench.scheduler.up = False
    assert await loop.step() == 300

    (row,) = await asyncio.to_thread(read_partitions, bench.context.config)

    assert (row["partition"], row["seen_at"]) == ("gpu", seen_at)
    assert (row["idle_nodes"], row["nodes"], row["idle_cpus"], row["cpus"]) == (1, 4, 96, 256)
