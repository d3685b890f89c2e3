"""What sacct says that jobs have used, as recorded and asked of a real slurmdbd."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_agent.slurm import usage
from hpc_agent.slurm.cli import slurm_on_this_host
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.slurm.values import FIELD
from tests.cluster import SlurmCluster

# The rows as sacct 24.11 prints them on a cluster with AccountingStorageTRES=gres/gpu and NVML:
# an allocation, then its steps. Constructed: no machine here has a GPU.
_WITH_GPU = [
    "17|7200|8|03:30:00|64G||1|billing=8,cpu=8,gres/gpu=2,mem=64G,node=1||",
    "17.batch|7200|8|03:29:58.120||33554432K|1|cpu=8,gres/gpu=2,mem=64G,node=1"
    "|cpu=03:29:58,gres/gpumem=30000M,gres/gpuutil=71|gres/gpumem=40960M,gres/gpuutil=99",
    "17.extern|7200|8|00:00.001||104K|1|cpu=8,gres/gpu=2,mem=64G,node=1||",
]


_HEADER = "JobID|ElapsedRaw|AllocCPUS|TotalCPU|ReqMem|MaxRSS|NNodes|AllocTRES|TRESUsageInAve"


def lines(rows: list[str]) -> str:
    header = f"{_HEADER}|TRESUsageInMax"
    return "".join(f"{row.replace('|', FIELD)}\n" for row in [header, *rows])


def test_job_has_the_figures_of_its_largest_step() -> None:
    """Memory and GPUs are known of steps only."""
    assert usage.parse(lines(_WITH_GPU)) == {
        "17": Usage(
            elapsed_seconds=7200,
            allocated_cpus=8,
            cpu_seconds=12600.0,
            requested_memory_bytes=64 << 30,
            max_rss_bytes=32 << 30,
            nodes=1,
            gpus=2,
            gpu_utilization=71.0,
            gpu_memory_bytes=40 << 30,
        )
    }


def test_requeued_job_has_the_figures_of_its_last_attempt() -> None:
    """What an earlier attempt has used is its own affair."""
    rows = ["17|10|1|00:05|1G||1|||", "17.batch|10|1|00:05||900K|1|||", "17|20|1|00:09|1G||1|||"]
    assert usage.parse(lines(rows))["17"].elapsed_seconds == 20
    assert usage.parse(lines(rows))["17"].max_rss_bytes is None


def test_nothing_gathered_is_unknown_and_not_zero() -> None:
    """Without a jobacct_gather plugin sacct prints zeros."""
    used = usage.parse(lines(["17|10|1|00:00:00|0||1|||"]))["17"]
    assert (used.cpu_seconds, used.max_rss_bytes, used.requested_memory_bytes) == (None,) * 3


@pytest.mark.parametrize(("text", "size"), [("4Gn", 8 << 30), ("1Gc", 4 << 30), ("4G", 4 << 30)])
def test_memory_per_node_and_per_cpu_is_that_of_the_job(text: str, size: int) -> None:
    """Slurm before 21.08 marks what its figure is per."""
    used = usage.parse(lines([f"17|10|4|00:01|{text}||2|||"]))["17"]
    assert used.requested_memory_bytes == size


@pytest.mark.slurm
async def test_usage_of_real_jobs_comes_from_one_query(
    slurm_cluster_accounting: SlurmCluster, tmp_path: Path
) -> None:
    """A job that burns CPU has used CPU; its memory was gathered."""
    scheduler = slurm_on_this_host(slurm_cluster_accounting.environment, commands_per_second=50)
    script = tmp_path / "burn.sh"
    script.write_text(
        "#!/bin/sh\n#SBATCH --output=/dev/null\n#SBATCH --mem=512M\n"
        "i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done\nsleep 6\n"
    )
    since = datetime.now(UTC) - timedelta(minutes=5)
    jobs = [await scheduler.submit(script, name="burn", comment="burn") for _ in range(2)]
    used: dict[str, Usage] = {}
    async with asyncio.timeout(100):
        while not all(job in used and used[job].max_rss_bytes for job in jobs):
            await asyncio.sleep(1)
            used = dict(await scheduler.usage(jobs, since=since))
    for job in jobs:
        assert (used[job].cpu_seconds or 0) > 0.2
        assert used[job].requested_memory_bytes == 512 << 20
        assert used[job].nodes == 1
