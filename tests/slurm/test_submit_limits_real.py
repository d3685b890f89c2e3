"""Limits on the number of submitted jobs, and others, as a real slurmdbd has Slurm enforce them."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Iterator

import pytest

from hpc_agent.errors import SchedulerLimitError, SubmitRefusedError
from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host
from tests.cluster import SlurmCluster, own_cluster
from tests.preemption import slurm as command
from tests.slurm.conftest import WriteScript

pytestmark = pytest.mark.slurm

USER = getpass.getuser()


@pytest.fixture(scope="module")
def strict() -> Iterator[SlurmCluster]:
    """A cluster that enforces limits: two jobs by QOS ``few``, three by account ``small``."""
    enforced = ["AccountingStorageEnforce=associations,limits,qos"]
    with own_cluster(accounting=True, conf_lines=enforced) as cluster:
        for words in (
            ("add", "qos", "few", "MaxSubmitJobsPerUser=2", "MaxWall=3", "Flags=DenyOnLimit"),
            ("add", "account", "small", "MaxSubmitJobs=3", "qos=normal,few"),
            ("add", "user", USER, "account=small", "DefaultAccount=small", "qos=normal,few"),
        ):
            command(cluster, "sacctmgr", "-i", *words)
        yield cluster


@pytest.fixture
async def scheduler(strict: SlurmCluster) -> AsyncIterator[SlurmCli]:
    """Slurm's commands; what a test has left in the queue is taken out."""
    slurm = slurm_on_this_host(strict.environment, burst=1000)
    yield slurm
    for job in (await slurm.queue()).records:
        if not job.state.is_final:
            await slurm.cancel(job.job_id)


@pytest.mark.parametrize(
    ("option", "limit", "name"),
    [("--qos=few", 2, "QOSMaxSubmitJob"), ("--account=small", 3, "AssocMaxSubmitJob")],
)
async def test_one_job_too_many_is_a_limit_that_frees_itself(
    scheduler: SlurmCli, write_script: WriteScript, option: str, limit: int, name: str
) -> None:
    """The next one goes in as soon as one has left the queue."""
    script = write_script("true", options=("--hold", "--account=small", option, "--time=2"))
    ids = [await scheduler.submit(script, name="n", comment="c") for _ in range(limit)]
    with pytest.raises(SchedulerLimitError, match=name):
        await scheduler.submit(script, name="n", comment="c")
    await scheduler.cancel(ids[0])
    await scheduler.submit(script, name="n", comment="c")


async def test_array_that_is_too_large_for_the_limit_makes_no_job(
    scheduler: SlurmCli, write_script: WriteScript
) -> None:
    """All of its tasks or none: the agent then takes fewer."""
    script = write_script("true", options=("--hold", "--account=small", "--qos=few", "--time=2"))
    with pytest.raises(SchedulerLimitError):
        await scheduler.submit_array(script, name="n", comment="array", size=3)
    assert not [job for job in (await scheduler.queue()).records if job.comment == "array"]
    await scheduler.submit_array(script, name="n", comment="array", size=2)


async def test_job_that_asks_for_too_much_is_refused(
    scheduler: SlurmCli, write_script: WriteScript
) -> None:
    """No time will come at which it may run: waiting does not help."""
    script = write_script("true", options=("--account=small", "--qos=few", "--time=4"))
    with pytest.raises(SubmitRefusedError, match="QOSMaxWallDurationPerJobLimit"):
        await scheduler.submit(script, name="n", comment="c")


async def test_account_that_is_not_the_users_is_refused(
    scheduler: SlurmCli, write_script: WriteScript
) -> None:
    """In Slurm's words."""
    script = write_script("true", options=("--account=nobodys",))
    with pytest.raises(SubmitRefusedError, match=r"[Ii]nvalid account"):
        await scheduler.submit(script, name="n", comment="c")
