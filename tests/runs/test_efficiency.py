"""What a job has used of what it had, and the advice that follows."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_agent.jobs.exit_record import ExitRecord
from hpc_agent.runs import efficiency
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from tests.workers import a_worker

GIB = 1 << 30


def job(seconds: float = 7200.0) -> Worker:
    return a_worker(
        key="run-1",
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.ENDED,
        deployment="prod",
        location="here",
        run_id="r",
        job_id="7",
        created_at=900.0,
        submitted_at=910.0,
        started_at=1000.0,
        ended_at=1000.0 + seconds,
    )


def usage(**changes: Any) -> Usage:
    values: dict[str, Any] = {
        "elapsed_seconds": 7200,
        "allocated_cpus": 8,
        "cpu_seconds": 46080.0,
        "requested_memory_bytes": 16 * GIB,
        "max_rss_bytes": 12 * GIB,
        "nodes": 2,
    }
    return Usage(**(values | changes))


def test_figures_of_accounting_are_told() -> None:
    """Elapsed, queue wait, efficiencies, node hours, and where they come from."""
    found = efficiency.measure(
        job(),
        usage(
            gpus=2, gpu_utilization=160.0, gpu_memory_bytes=40 * GIB, billing=12, energy_joules=900
        ),
        None,
    )
    assert efficiency.metadata(found) == {
        "elapsed (s)": 7200.0,
        "queue wait (s)": 90.0,
        "CPUs": 8,
        "CPU efficiency (%)": 80.0,
        "memory requested (GB)": 16.0,
        "memory used (GB)": 12.0,
        "memory efficiency (%)": 75.0,
        "GPUs": 2,
        "GPU utilization (%)": 80.0,
        "GPU memory used (GB)": 40.0,
        "node hours": 4.0,
        "billing": 12,
        "billing hours": 24.0,
        "energy (J)": 900,
        "source": "sacct",
    }
    assert efficiency.asset_metadata(found) == {
        "dagster-hpc/elapsed_seconds": 7200.0,
        "dagster-hpc/queue_wait_seconds": 90.0,
        "dagster-hpc/cpus": 8,
        "dagster-hpc/cpu_efficiency": 80.0,
        "dagster-hpc/requested_memory_mb": 16384.0,
        "dagster-hpc/max_rss_mb": 12288.0,
        "dagster-hpc/memory_efficiency": 75.0,
        "dagster-hpc/gpus": 2,
        "dagster-hpc/gpu_utilization": 80.0,
        "dagster-hpc/gpu_memory_mb": 40960.0,
        "dagster-hpc/node_hours": 4.0,
        "dagster-hpc/billing_hours": 24.0,
        "dagster-hpc/energy_joules": 900,
    }
    assert efficiency.describe(job(), found) == "Job 7 used CPU 80%, memory 75%, GPU 80%."


def test_without_accounting_the_exit_record_tells() -> None:
    """The node program measured its children, and read what it was given from its environment."""
    record = ExitRecord.parse(
        {
            "exit_code": 0,
            "cpu_seconds": 7200.0,
            "max_rss_kb": 1 << 20,
            "allocation": {"cpus": 2, "nodes": 1, "memory_mb": 2048, "gpus": None},
        }
    )
    entries = efficiency.metadata(efficiency.measure(job(), None, record))
    assert (entries["CPU efficiency (%)"], entries["memory efficiency (%)"]) == (50.0, 50.0)
    assert (entries["node hours"], entries["source"]) == (2.0, "exit record")


def test_accounting_that_gathers_nothing_is_completed_by_the_exit_record() -> None:
    """Without a jobacct_gather plugin sacct knows what was given, and not what was used."""
    record = ExitRecord.parse({"exit_code": 0, "cpu_seconds": 57600.0, "max_rss_kb": 8 << 20})
    found = efficiency.measure(job(), usage(cpu_seconds=None, max_rss_bytes=None), record)
    assert (found.cpu_share, found.memory_share, found.source) == (1.0, 0.5, "exit record")


def test_what_nobody_measured_is_left_out() -> None:
    """Unknown is not zero, and zero is not unknown."""
    found = efficiency.measure(job(), None, None)
    assert set(efficiency.metadata(found)) == {"elapsed (s)", "queue wait (s)", "source"}
    assert set(efficiency.asset_metadata(found)) == {
        "dagster-hpc/elapsed_seconds",
        "dagster-hpc/queue_wait_seconds",
    }
    idle = efficiency.measure(job(), usage(gpus=1, gpu_utilization=0.0, billing=0), None)
    assert efficiency.asset_metadata(idle)["dagster-hpc/gpu_utilization"] == 0.0
    assert efficiency.metadata(idle)["billing hours"] == 0.0


@pytest.mark.parametrize(
    ("used", "words"),
    [
        (usage(cpu_seconds=7200.0), "It kept 1.0 of 8 CPUs busy: lower dagster-hpc/cpus-per-task"),
        (
            usage(max_rss_bytes=2 * GIB),
            "It used 2.0 of 16.0 GB of memory: dagster-hpc/mem: 2560M would be enough",
        ),
        (
            usage(max_rss_bytes=15 * GIB),
            "It nearly ran out of memory (15.0 of 16.0 GB of memory): raise dagster-hpc/mem",
        ),
        (
            usage(max_rss_bytes=20 * GIB),
            "It used more memory than it had asked for (20.0 of 16.0 GB of memory): "
            "raise dagster-hpc/mem",
        ),
        (
            usage(gpus=4, gpu_utilization=80.0),
            "Its GPUs were never busier than 20%: ask for fewer, or feed them faster",
        ),
    ],
)
def test_waste_and_danger_are_told_with_what_to_do(used: Usage, words: str) -> None:
    """More than half wasted, or memory nearly gone."""
    assert efficiency.advice(efficiency.measure(job(), used, None)) == [words]


def test_job_that_used_what_it_asked_for_gets_no_advice() -> None:
    """Nobody reads advice that always comes."""
    assert efficiency.advice(efficiency.measure(job(), usage(), None)) == []


def test_job_of_less_than_a_minute_gets_no_advice() -> None:
    """Most of it was start-up."""
    short = usage(elapsed_seconds=50, cpu_seconds=1.0, max_rss_bytes=1)
    assert efficiency.advice(efficiency.measure(job(50.0), short, None)) == []


def test_one_cpu_that_waits_is_no_waste_that_could_be_saved() -> None:
    """There is no fewer than one."""
    used = usage(allocated_cpus=1, cpu_seconds=10.0)
    assert efficiency.advice(efficiency.measure(job(), used, None)) == []


def test_largest_process_alone_is_no_reason_to_ask_for_less_memory() -> None:
    """Its siblings may need the rest; that it nearly fills the memory is one to ask for more."""

    def advice(kilobytes: int) -> list[str]:
        allocation = {"cpus": 1, "nodes": 1, "memory_mb": 10240, "gpus": None}
        record = ExitRecord.parse(
            {"exit_code": 0, "max_rss_kb": kilobytes, "allocation": allocation}
        )
        return efficiency.advice(efficiency.measure(job(), None, record))

    assert advice(1 << 20) == []
    assert "raise dagster-hpc/mem" in advice(int(9.5 * (1 << 20)))[0]
