"""Job arrays: their submission, and each way in which Slurm's commands name their tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_agent.errors import JobNotFoundError, SubmitRefusedError
from hpc_agent.slurm import sacct, scontrol, squeue
from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host
from hpc_agent.slurm.scheduler import array_id, task_id
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import FIELD, parse_job_ids
from tests.cluster import SlurmCluster
from tests.slurm.conftest import WriteScript
from tests.slurm.recording import read
from tests.slurm.waiting import LIMIT_SECONDS, until_final, until_state, until_text

CONFIG = "printf 'ClusterName = c\\nMaxArraySize = 77\\nSLURM_VERSION = 22.05.8\\n'"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("17", ["17"]),
        ("17_3", ["17_3"]),
        ("17_[3-5]", ["17_3", "17_4", "17_5"]),
        ("17_[0,2,7-8%4]", ["17_0", "17_2", "17_7", "17_8"]),
        ("17_[1-7:3]", ["17_1", "17_4", "17_7"]),
        ("17_[1-...]", []),
        ("17_[1,3,5,...]", []),
        ("17_[0-4000000000]", []),
        ("Welcome", []),
        ("17+1", ["17+1"]),
    ],
)
def test_each_task_of_a_range_is_a_job(text: str, ids: list[str]) -> None:
    """A list that was cut, and what is no id, are none."""
    assert parse_job_ids(text) == ids


def test_an_accounting_record_of_waiting_tasks_is_one_for_each() -> None:
    """And a task that has a record of its own keeps that."""
    times = ["1700000000", "Unknown", "Unknown", "60", "debug"]
    columns = ["PENDING", "0:0", *times, "", "Priority", "/w", "sbatch j", "n", "c", "17"]
    started = ["RUNNING", "0:0", *times, "c1", "None", "/w", "sbatch j", "n", "c", "18"]
    header = read("sacct.txt").split("\n")[0].split(FIELD)
    lines = [header, ["17_[3-5]", *columns], ["17_2", *started]]
    look = sacct.parse("\n".join(FIELD.join(line) for line in lines) + "\n")
    assert look.is_complete
    assert {record.job_id: record.state for record in look.records} == {
        "17_3": JobState.PENDING,
        "17_4": JobState.PENDING,
        "17_5": JobState.PENDING,
        "17_2": JobState.RUNNING,
    }


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ("MaxArraySize            = 1001\nMaxJobCount = 5\n", 1001),
        ("MaxArraySize = 1001\nSchedulerParameters     = defer,max_array_tasks=50\n", 50),
        ("MaxArraySize            = 0\n", 0),
    ],
)
def test_the_largest_array_is_what_the_configuration_says(config: str, size: int) -> None:
    """MaxArraySize, or a smaller max_array_tasks."""
    whole = f"ClusterName = c\n{config}SLURM_VERSION = 22.05.8\n"
    assert scontrol.parse_max_array_size(whole) == size


def test_ids_of_tasks_and_arrays() -> None:
    """A plain job is its own array."""
    assert task_id("17", 3) == "17_3"
    assert (array_id("17_3"), array_id("17"), array_id("local-7")) == ("17", "17", "local-7")


def test_record_that_has_not_changed_is_the_same_object() -> None:
    """Ten thousand jobs of which one has changed cost the reading of one."""
    text = read("squeue.txt")
    reader = squeue.Reader()
    first = {record.job_id: record for record in reader.read(text).records}
    changed = next(job for job in first.values() if job.state is JobState.PENDING)
    job = f"{changed.job_id}{FIELD}"
    later = text.replace(f"{job}PENDING", f"{job}RUNNING")
    second = {record.job_id: record for record in reader.read(later).records}
    different = [job_id for job_id in first if second[job_id] is not first[job_id]]
    assert different == [changed.job_id]
    assert second[changed.job_id].state is JobState.RUNNING


@pytest.fixture
async def array(slurm: SlurmCli, write_script: WriteScript) -> AsyncIterator[str]:
    """A held array of five tasks."""
    script = write_script("sleep 300", options=("--hold",))
    job_id = await slurm.submit_array(script, name="hpc-agent:arr", comment="arr", size=5)
    yield job_id
    await slurm.cancel(job_id)


@pytest.mark.slurm
async def test_waiting_tasks_are_jobs_of_their_own(slurm: SlurmCli, array: str) -> None:
    """In the queue, when shown one by one, and when searched for by the array's comment."""
    ids = [task_id(array, index) for index in range(5)]
    queued = {record.job_id: record for record in (await slurm.queue()).records}
    assert [queued[job_id].state for job_id in ids] == [JobState.PENDING] * 5
    assert {queued[job_id].comment for job_id in ids} == {"arr"}
    assert (await slurm.show(ids[3])).job_id == ids[3]
    found = (await slurm.find("arr", since=datetime.now(UTC) - timedelta(minutes=1))).records
    assert set(ids) <= {record.job_id for record in found}


@pytest.mark.slurm
async def test_one_waiting_task_can_be_canceled(slurm: SlurmCli, array: str) -> None:
    """The others wait on. Slurm forgets at once that the task has been: 22.05 does."""
    await slurm.cancel(task_id(array, 2))
    states = await tasks(slurm, array)
    assert states.pop(2, JobState.CANCELLED) is JobState.CANCELLED
    assert states == dict.fromkeys((0, 1, 3, 4), JobState.PENDING)
    await slurm.cancel(task_id(array, 2))


@pytest.mark.slurm
async def test_tasks_run_with_their_own_directory_and_end_one_by_one(
    slurm: SlurmCli, write_script: WriteScript, tmp_path: Path
) -> None:
    """Each knows its index; one fails, one is canceled while it runs, one completes."""
    script = write_script(
        f'echo "$SLURM_ARRAY_TASK_ID" > {tmp_path}/task-"$SLURM_ARRAY_TASK_ID"',
        'case "$SLURM_ARRAY_TASK_ID" in 0) exit 0 ;; 1) exit 3 ;; *) exec sleep 300 ;; esac',
    )
    job_id = await slurm.submit_array(script, name="n", comment="c", size=3)
    ends = [await until_final(slurm, task_id(job_id, index)) for index in (0, 1)]
    assert [(end.job_id, end.state, end.exit_code) for end in ends] == [
        (f"{job_id}_0", JobState.COMPLETED, 0),
        (f"{job_id}_1", JobState.FAILED, 3),
    ]
    assert await until_text(tmp_path / "task-2") == "2\n"
    await slurm.cancel(task_id(job_id, 2))
    assert (await until_final(slurm, task_id(job_id, 2))).state is JobState.CANCELLED


async def test_the_largest_array_is_asked_once(tmp_path: Path) -> None:
    """The configuration is the same as long as the agent runs."""
    fake = tmp_path / "scontrol"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{CONFIG}\n')
    fake.chmod(0o755)
    slurm = slurm_on_this_host({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert [await slurm.max_array_size() for _ in range(3)] == [77, 77, 77]
    assert (tmp_path / "calls").read_text() == "show config\n"


@pytest.mark.slurm
async def test_an_array_that_is_too_large_is_refused_as_a_whole(
    slurm: SlurmCli, write_script: WriteScript
) -> None:
    """No task of it is made."""
    script = write_script("true", options=("--hold",))
    with pytest.raises(SubmitRefusedError, match="Invalid job array"):
        await slurm.submit_array(script, name="n", comment="too large", size=1002)
    assert "too large" not in {record.comment for record in (await slurm.queue()).records}


@pytest.mark.slurm
async def test_a_task_that_never_was_is_not_found(slurm: SlurmCli, array: str) -> None:
    """Its array being there does not make it one."""
    with pytest.raises(JobNotFoundError):
        await slurm.show(task_id(array, 99))


@pytest.mark.slurm
async def test_accounting_tells_of_waiting_and_ended_tasks(
    slurm_cluster_accounting: SlurmCluster, write_script: WriteScript
) -> None:
    """The waiting ones are one record in sacct, and one each here."""
    slurm = slurm_on_this_host(slurm_cluster_accounting.environment, burst=1000)
    since = datetime.now(UTC) - timedelta(minutes=1)
    # Two nodes of four CPUs: the third and fourth task wait.
    script = write_script("sleep 300", options=("--cpus-per-task=4",))
    job_id = await slurm.submit_array(script, name="n", comment="c", size=4)
    ids = [task_id(job_id, index) for index in range(4)]
    await until_state(slurm, ids[1], JobState.RUNNING)
    states = await accounted(slurm, ids, since, lambda found: JobState.RUNNING in found)
    assert [states[job_id] for job_id in ids[2:]] == [JobState.PENDING] * 2
    await slurm.cancel(job_id)
    await accounted(slurm, ids, since, lambda found: found == {JobState.CANCELLED})


async def tasks(slurm: SlurmCli, array: str) -> dict[int, JobState]:
    """Return the states of an array's tasks in the queue, by index."""
    return {
        int(record.job_id.partition("_")[2]): record.state
        for record in (await slurm.queue()).records
        if array_id(record.job_id) == array
    }


async def accounted(
    slurm: SlurmCli, ids: list[str], since: datetime, holds: Callable[[set[JobState]], bool]
) -> dict[str, JobState]:
    """Return what accounting has once it has all of them, and this holds of their states."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        records = (await slurm.history(ids, since=since)).records
        states = {record.job_id: record.state for record in records}
        if set(ids) <= set(states) and holds(set(states.values())):
            return states
        assert time.monotonic() < deadline, f"still {states}"
        await asyncio.sleep(0.2)
