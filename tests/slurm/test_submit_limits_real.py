"""Limits on the number of submitted jobs, and others, as a real slurmdbd has Slurm enforce them."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from hpc_agent.errors import NoPartitionError, SchedulerLimitError, SubmitRefusedError
from hpc_agent.jobs.options import Source, merge
from hpc_agent.jobs.partition_choice import with_partition
from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host
from tests.cluster import SlurmCluster, own_cluster
from tests.preemption import slurm as command
from tests.slurm.conftest import WriteScript

pytestmark = pytest.mark.slurm

USER = getpass.getuser()


@pytest.fixture(scope="module")
def strict() -> Iterator[SlurmCluster]:
    """A cluster that enforces limits: two jobs by QOS ``few``, three by account ``small``."""
    enforced = [
        "AccountingStorageEnforce=associations,limits,qos",
        # Without GPUs. Nobody answers there: what is submitted waits.
        "NodeName=plain CPUs=8 RealMemory=8192 Feature=ib NodeAddr=127.0.0.1 Port=9 State=DOWN",
        "PartitionName=cpu Nodes=plain MaxTime=60 State=UP AllowAccounts=small",
        "PartitionName=other Nodes=plain MaxTime=60 State=UP AllowAccounts=root",
    ]
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
    ("asked", "partition"),
    [
        ({"mem": "4G", "constraint": "ib"}, "cpu"),
        ({"account": "root", "time": "60"}, "other"),
        ({"gpus": 2, "time": "45", "qos": "normal"}, "batch"),
        ({"gpus": 4, "nodes": 2, "mem": "100M", "time": "5"}, "batch,debug"),
        ({"gpus": 4}, "batch"),
    ],
)
async def test_partition_that_is_chosen_is_one_that_slurm_takes(
    scheduler: SlurmCli, write_script: WriteScript, asked: dict[str, Any], partition: str
) -> None:
    """By what Slurm tells of partitions, nodes and accounts; sbatch agrees (EnforcePartLimits)."""
    facts = await scheduler.partition_facts()
    assert facts.enforces_associations
    merged = merge([Source("run tags", {"account": "small", **asked})])
    settings = with_partition(merged, facts, allowed=None)
    assert {each.option: each.value for each in settings}["partition"] == partition
    script = write_script("true", options=[each.directive for each in settings])
    await scheduler.submit(script, name="n", comment="c")


async def test_partition_that_slurm_would_refuse_is_not_chosen(
    scheduler: SlurmCli, write_script: WriteScript
) -> None:
    """More GPUs than there are: sbatch says so as well."""
    merged = merge([Source("run tags", {"account": "small", "gpus": 5})])
    with pytest.raises(NoPartitionError, match="4 GPUs that the job can use on 2 of its nodes"):
        with_partition(merged, await scheduler.partition_facts(), allowed=None)
    script = write_script("true", options=[each.directive for each in merged])
    with pytest.raises(SubmitRefusedError):
        await scheduler.submit(script, name="n", comment="c")


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
