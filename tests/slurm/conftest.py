"""The schedulers under contract, and job scripts for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host
from hpc_agent.slurm.local import LocalScheduler
from hpc_agent.slurm.scheduler import Scheduler
from tests.cluster import SlurmCluster
from tests.slurm.matrix import note
from tests.slurm.waiting import until_final

pytest_runtest_logreport = note
WriteScript = Callable[..., Path]


@dataclass(frozen=True, kw_only=True)
class Contractor:
    """A scheduler and how many jobs it runs at once before the next one waits."""

    scheduler: Scheduler
    slots: int


@pytest.fixture
def write_script(tmp_path: Path) -> WriteScript:
    """Return a function that writes a job script of some lines and options."""
    numbers = iter(range(1000))

    def write(*lines: str, options: tuple[str, ...] = ()) -> Path:
        path = tmp_path / f"job{next(numbers)}.sh"
        head = [f"#SBATCH {option}" for option in (f"--output={tmp_path}/%j.out", *options)]
        path.write_text("\n".join(["#!/bin/bash", *head, *lines]) + "\n")
        return path

    return write


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster) -> SlurmCli:
    """Slurm's commands on a real cluster, hardly slowed by a rate limit."""
    return slurm_on_this_host(slurm_cluster.environment, burst=1000)


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalScheduler]:
    """The local scheduler with two slots; its jobs are ended afterwards."""
    scheduler = LocalScheduler(tmp_path / "local", slots=2, grace_seconds=2)
    yield scheduler
    for record in await scheduler.queue():
        await scheduler.cancel(record.job_id)
    for record in await scheduler.queue():
        await until_final(scheduler, record.job_id)


@pytest.fixture(params=[pytest.param("slurm", marks=pytest.mark.slurm), "local"])
def contractor(request: pytest.FixtureRequest) -> Contractor:
    """Each scheduler in turn."""
    scheduler = request.getfixturevalue(request.param)
    return Contractor(scheduler=scheduler, slots=2 if request.param == "local" else 0)


@pytest.fixture
def scheduler(contractor: Contractor) -> Scheduler:
    """Each scheduler in turn."""
    return contractor.scheduler
