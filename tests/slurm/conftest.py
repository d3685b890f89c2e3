"""The schedulers under contract, and job scripts for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host, slurm_over
from hpc_agent.slurm.commands import ProcessRunner
from hpc_agent.slurm.local import LocalScheduler
from hpc_agent.slurm.pyslurm_transport import PyslurmScheduler
from hpc_agent.slurm.rest import SlurmRest, slurm_by_rest
from hpc_agent.slurm.rest_client import Target
from hpc_agent.slurm.rest_token import CommandToken
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.slurm.ssh import SshRunner
from hpc_agent.slurm.ssh_shared import SharedConnection
from tests.cluster import SlurmCluster
from tests.slurm.matrix import note
from tests.slurm.stand_in import StandIn, pyslurm_scheduler, why_no_pyslurm
from tests.slurm.waiting import until_final
from tests.ssh import Login, Sshd, running_sshd

pytest_runtest_logreport = note
WriteScript = Callable[..., Path]


@dataclass(frozen=True, kw_only=True)
class Contractor:
    """A scheduler and how many jobs it runs at once before the next one waits.

    ``lacks`` says of the abilities that this one has not why that is so.
    """

    scheduler: Scheduler
    slots: int
    lacks: Mapping[str, str] = field(default_factory=dict)


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
    for record in (await scheduler.queue()).records:
        await scheduler.cancel(record.job_id)
    for record in (await scheduler.queue()).records:
        await until_final(scheduler, record.job_id)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd without a Slurm."""
    with running_sshd(tmp_path_factory.mktemp("sshd"), {"FROM_SSHD": "yes"}) as running:
        yield running


@pytest.fixture(scope="session")
def sshd_of_slurm(
    slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sshd]:
    """An sshd on the cluster, behind a login shell that is no sh(1) and prints at its start."""
    variables = {name: slurm_cluster.environment[name] for name in ("SLURM_CONF", "PATH")}
    login = Login("tcsh", {".cshrc": "echo 'Welcome! 42 jobs wait.'\n"})
    with running_sshd(tmp_path_factory.mktemp("sshd"), variables, login=login) as running:
        yield running


@pytest.fixture
async def ssh(sshd_of_slurm: Sshd) -> AsyncIterator[SlurmCli]:
    """Slurm's commands over a real SSH connection."""
    runner = SshRunner(SharedConnection(sshd_of_slurm.target))
    yield slurm_over(runner, burst=1000)
    await asyncio.to_thread(runner.close)


@pytest.fixture
async def pyslurm(slurm_cluster: SlurmCluster) -> AsyncIterator[PyslurmScheduler]:
    """The real pyslurm, where one is installed that matches this Slurm."""
    reason = why_no_pyslurm(slurm_cluster.version)
    if reason is not None:
        pytest.skip(reason)
    scheduler = pyslurm_scheduler(slurm_cluster, slurm_cluster.environment)
    yield scheduler
    await scheduler.close()


@pytest.fixture
async def pyslurm_stand_in(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> AsyncIterator[PyslurmScheduler]:
    """Our helper, and in it a stand-in for pyslurm that calls Slurm's commands."""
    environment = StandIn(tmp_path, slurm_cluster).environment
    scheduler = pyslurm_scheduler(slurm_cluster, environment)
    yield scheduler
    await scheduler.close()


@pytest.fixture
async def rest(slurm_cluster_rest: SlurmCluster) -> AsyncIterator[SlurmRest]:
    """A real slurmrestd, with tokens of scontrol."""
    runner = ProcessRunner(slurm_cluster_rest.environment)
    token = CommandToken(["scontrol", "token", "lifespan=600"], runner)
    scheduler = slurm_by_rest(Target(url=slurm_cluster_rest.restd), token, burst=1000)
    yield scheduler
    await scheduler.close()


@pytest.fixture(
    params=[
        pytest.param("slurm", marks=pytest.mark.slurm),
        pytest.param("ssh", marks=pytest.mark.slurm),
        pytest.param("rest", marks=pytest.mark.slurm),
        pytest.param("pyslurm", marks=pytest.mark.slurm),
        pytest.param("pyslurm_stand_in", marks=pytest.mark.slurm),
        "local",
    ]
)
def contractor(request: pytest.FixtureRequest) -> Contractor:
    """Each scheduler in turn."""
    scheduler = request.getfixturevalue(request.param)
    lacks = {}
    if request.param == "rest":
        lacks = lacks_by_rest(request.getfixturevalue("slurm_cluster_rest").version)
    return Contractor(scheduler=scheduler, slots=2 if request.param == "local" else 0, lacks=lacks)


def lacks_by_rest(version: str) -> dict[str, str]:
    """Return what slurmrestd of a version of Slurm cannot do, and why."""
    if version.startswith("22.05"):
        return {"signal": "v0.0.38 of slurmrestd's API cannot signal the batch process alone"}
    if version.startswith("24.11"):
        return {"default partition": "v0.0.42 of slurmrestd's API names no default partition"}
    return {}


@pytest.fixture
def scheduler(contractor: Contractor) -> Scheduler:
    """Each scheduler in turn."""
    return contractor.scheduler
