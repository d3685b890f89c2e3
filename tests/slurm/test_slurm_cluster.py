"""What only a real Slurm can show."""

from __future__ import annotations

import asyncio
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_agent.errors import SchedulerUnavailableError, SubmitRefusedError
from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host
from hpc_agent.slurm.scheduler import JobRecord, Look
from hpc_agent.slurm.state import JobState
from tests.cluster import SlurmCluster
from tests.slurm.conftest import WriteScript
from tests.slurm.waiting import LIMIT_SECONDS, until_final, until_state

pytestmark = pytest.mark.slurm


@pytest.fixture
def accounted(slurm_cluster_accounting: SlurmCluster) -> SlurmCli:
    """Slurm's commands on a real cluster with slurmdbd."""
    return slurm_on_this_host(slurm_cluster_accounting.environment, burst=1000)


async def test_a_wrong_partition_is_refused_in_slurms_words(
    slurm: SlurmCli, write_script: WriteScript
) -> None:
    """The user reads which partition it is."""
    script = write_script("true", options=("--partition=nope",))
    with pytest.raises(SubmitRefusedError, match="invalid partition specified: nope"):
        await slurm.submit(script, name="n", comment="c")


async def test_too_long_a_time_is_refused_in_slurms_words(
    slurm: SlurmCli, write_script: WriteScript
) -> None:
    """EnforcePartLimits makes it an error at once instead of a job that never starts."""
    script = write_script("true", options=("--time=99-00",))
    with pytest.raises(SubmitRefusedError, match="time limit is invalid"):
        await slurm.submit(script, name="n", comment="c")


async def test_no_controller_is_unavailable(
    slurm_cluster: SlurmCluster, write_script: WriteScript, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A real sbatch and squeue against a port where nobody listens."""
    directory = tmp_path_factory.mktemp("away")
    config = directory / "slurm.conf"
    path = slurm_cluster.slurm_conf
    used = await asyncio.to_thread(Path(path).read_text) if path else ""
    plugins = re.search(r"^PluginDir=.*\n", used, re.MULTILINE)
    config.write_text(
        f"{plugins[0] if plugins else ''}"
        "ClusterName=away\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\n"
        "AuthType=auth/none\nCredType=cred/none\nMessageTimeout=2\nSlurmctldTimeout=2\n"
        "NodeName=n1 NodeAddr=127.0.0.1\nPartitionName=p Nodes=n1\n"
    )
    environment = {**slurm_cluster.environment, "SLURM_CONF": str(config)}
    slurm = slurm_on_this_host(environment, burst=1000)
    assert not await slurm.healthy()
    with pytest.raises(SchedulerUnavailableError, match="Unable to contact slurm controller"):
        await slurm.queue()
    with pytest.raises(SchedulerUnavailableError, match="Unable to contact slurm controller"):
        await slurm.submit(write_script("true"), name="n", comment="c")


async def test_a_requested_time_limit_is_in_every_record(
    slurm: SlurmCli, write_script: WriteScript
) -> None:
    """Seconds, in squeue and scontrol."""
    script = write_script("true", options=("--time=1-02:03:00", "--partition=batch", "--hold"))
    job_id = await slurm.submit(script, name="n", comment="c")
    shown = await slurm.show(job_id)
    (queued,) = [job for job in (await slurm.queue()).records if job.job_id == job_id]
    await slurm.cancel(job_id)
    assert shown.time_limit_seconds == queued.time_limit_seconds == 93780
    assert shown.partition == queued.partition == "batch"


async def test_a_requeued_job_counts_its_restarts(
    slurm: SlurmCli, slurm_cluster: SlurmCluster, write_script: WriteScript
) -> None:
    """The same id waits again, which is not an end."""
    job_id = await slurm.submit(write_script("sleep 300"), name="n", comment="c")
    await until_state(slurm, job_id, JobState.RUNNING)
    process = await asyncio.create_subprocess_exec(
        "scontrol", "requeue", job_id, env={**os.environ, **slurm_cluster.environment}
    )
    assert await process.wait() == 0
    record = await until_state(slurm, job_id, JobState.PENDING)
    (queued,) = [job for job in (await slurm.queue()).records if job.job_id == job_id]
    await slurm.cancel(job_id)
    assert record.restarts == queued.restarts == 1


async def test_accounting_tells_how_jobs_ended(
    accounted: SlurmCli, write_script: WriteScript
) -> None:
    """One sacct for all of them, with state, exit code, name and comment."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    key = f"run-{os.urandom(5).hex()}"
    good = await accounted.submit(write_script("true"), name=f"hpc-agent:{key}", comment=key)
    bad = await accounted.submit(write_script("exit 3"), name="two\nlines", comment="a\nb|c")
    for job_id in (good, bad):
        await until_final(accounted, job_id)
    records = await _accounted(accounted, [good, bad], since)
    assert (records[good].state, records[good].exit_code) == (JobState.COMPLETED, 0)
    assert (records[good].name, records[good].comment) == (f"hpc-agent:{key}", key)
    assert (records[bad].state, records[bad].exit_code) == (JobState.FAILED, 3)
    assert (records[bad].name, records[bad].comment) == ("two\nlines", "a\nb|c")
    assert all(record.end_time and record.submit_time for record in records.values())


async def test_a_cluster_without_accounting_has_no_history(
    slurm: SlurmCli, slurm_cluster: SlurmCluster, write_script: WriteScript
) -> None:
    """An empty answer, not an error."""
    if slurm_cluster.has_accounting:
        pytest.skip("this cluster has accounting")
    job_id = await slurm.submit(write_script("true"), name="n", comment="c")
    await until_final(slurm, job_id)
    since = datetime.now(UTC) - timedelta(minutes=1)
    assert await slurm.history([job_id], since=since) == Look()


async def _accounted(slurm: SlurmCli, job_ids: list[str], since: datetime) -> dict[str, JobRecord]:
    """Return the final records; slurmdbd gets them some seconds after the end.

    A job whose end arrives there before its start is called ``allocation`` until then.
    """
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            records = {
                job.job_id: job for job in (await slurm.history(job_ids, since=since)).records
            }
            settled = [job for job in records.values() if job.state.is_final]
            if len(settled) == len(job_ids) and all(job.name != "allocation" for job in settled):
                return records
            await asyncio.sleep(0.2)
