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
from tests.slurm.recording import read

# The rows as sacct 24.11 prints them on a cluster with AccountingStorageTRES=gres/gpu, NVML and
# AcctGatherEnergyType: an allocation, then its steps. Constructed: no machine here has a GPU.
_WITH_GPU = [
    "17|7200|8|03:30:00|64G||1|billing=8,cpu=8,energy=3600000,gres/gpu=2,mem=64G,node=1|||3600000",
    "17.batch|7200|8|03:29:58.120||33554432K|1|cpu=8,gres/gpu=2,mem=64G,node=1"
    "|cpu=03:29:58,gres/gpumem=40960M,gres/gpuutil=99|gres/gpumem=30000M,gres/gpuutil=171|3500000",
    "17.extern|7200|8|00:00.001||104K|1|cpu=8,gres/gpu=2,mem=64G,node=1|||0",
]


def lines(rows: list[str]) -> str:
    header = "JobID|ElapsedRaw|AllocCPUS|TotalCPU|ReqMem|MaxRSS|NNodes|AllocTRES|"
    header += "TRESUsageInMax|TRESUsageInTot|ConsumedEnergyRaw"
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
            gpu_utilization=171.0,
            gpu_memory_bytes=40 << 30,
            billing=8,
            energy_joules=3_600_000,
        )
    }


def test_requeued_job_has_the_figures_of_its_last_attempt() -> None:
    """What an earlier attempt has used is its own affair."""
    rows = ["17|10|1|00:05|1G||1||||", "17.batch|10|1|00:05||900K|1||||"]
    rows.append("17|20|1|00:09|1G||1||||")
    assert usage.parse(lines(rows))["17"].elapsed_seconds == 20
    assert usage.parse(lines(rows))["17"].max_rss_bytes is None


def test_nothing_gathered_is_unknown_and_not_zero() -> None:
    """Without a jobacct_gather plugin sacct prints zeros."""
    used = usage.parse(lines(["17|10|1|00:00:00|0||1||||0"]))["17"]
    assert used == Usage(elapsed_seconds=10, allocated_cpus=1, nodes=1)


def test_energy_without_a_value_is_unknown() -> None:
    """Where one node of several does not measure it, Slurm has NO_VAL64."""
    used = usage.parse(lines([f"17|10|1|00:01|1G||1||||{(1 << 64) - 2}"]))["17"]
    assert used.energy_joules is None


@pytest.mark.parametrize("version", ["22.05", "24.11", "26.05"])
def test_recorded_jobs_have_their_billing_and_no_energy(version: str) -> None:
    """By the partition's TRESBillingWeights (CPU=2), and by default; nothing measures energy."""
    used = usage.parse(read("sacct-usage.txt", version))
    assert {job: each.billing for job, each in used.items()} == {"1": 1, "2": 4}
    for each in used.values():
        assert (each.nodes, each.gpus, each.gpu_utilization) == (1, None, None)
        assert each.energy_joules is None
        assert (each.cpu_seconds or 0) > 3
        assert (each.max_rss_bytes or 0) > 50_000_000


@pytest.mark.parametrize(("text", "size"), [("4Gn", 8 << 30), ("1Gc", 4 << 30), ("4G", 4 << 30)])
def test_memory_per_node_and_per_cpu_is_that_of_the_job(text: str, size: int) -> None:
    """Slurm before 21.08 marks what its figure is per."""
    used = usage.parse(lines([f"17|10|4|00:01|{text}||2||||"]))["17"]
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
        assert (used[job].nodes, used[job].billing) == (1, 1)
        assert used[job].energy_joules is None
