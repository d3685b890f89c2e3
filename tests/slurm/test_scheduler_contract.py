"""What every Scheduler does, on a real Slurm and on real local processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from blockbuster import blockbuster_ctx

from hpc_agent.errors import JobNotFoundError, SubmitRefusedError
from hpc_agent.slurm.scheduler import JobRecord, Look, Scheduler, task_id
from hpc_agent.slurm.state import JobState
from tests.slurm.conftest import Contractor, WriteScript
from tests.slurm.waiting import until, until_final, until_state, until_text

HOSTILE = [
    "spaces and 'single' quotes",
    '"double" quotes; echo injected',
    "$(touch injected) `touch injected`",
    "pipe|equals=a UserId=root(0) GroupId=",
    "two\nlines #SBATCH --partition=nope",
    "--partition=nope",
    "ünïcödé 计算",
    "x" * 300,
]


@pytest.fixture
async def submitted(scheduler: Scheduler) -> AsyncIterator[list[str]]:
    """Collect ids of jobs that must not outlive the test."""
    ids: list[str] = []
    yield ids
    for job_id in ids:
        await scheduler.cancel(job_id)


async def test_a_job_runs_to_its_end(scheduler: Scheduler, write_script: WriteScript) -> None:
    """A submitted script runs, and its record holds all that was given."""
    before = datetime.now(UTC) - timedelta(seconds=2)
    job_id = await scheduler.submit(write_script("echo hello"), name="greet", comment="run-1")
    record = await until_final(scheduler, job_id)
    assert record.job_id == job_id
    assert (record.state, record.exit_code, record.signal) == (JobState.COMPLETED, 0, None)
    assert (record.name, record.comment) == ("greet", "run-1")
    assert record.submit_time is not None and record.submit_time >= before
    assert record.start_time is not None and record.end_time is not None
    assert record.start_time <= record.end_time
    assert record.nodes


async def test_output_goes_to_the_file_of_the_script(
    scheduler: Scheduler, write_script: WriteScript, tmp_path: Path
) -> None:
    """``%j`` in --output is the job id."""
    job_id = await scheduler.submit(write_script("echo hello"), name="n", comment="c")
    await until_final(scheduler, job_id)
    assert await until_text(tmp_path / f"{job_id}.out") == "hello\n"


async def test_a_failing_script_is_failed_with_its_exit_code(
    scheduler: Scheduler, write_script: WriteScript
) -> None:
    """The exit code of the script is the job's."""
    job_id = await scheduler.submit(write_script("exit 3"), name="n", comment="c")
    record = await until_final(scheduler, job_id)
    assert (record.state, record.exit_code, record.signal) == (JobState.FAILED, 3, None)


async def test_a_killed_script_is_failed_with_its_signal(
    scheduler: Scheduler, write_script: WriteScript
) -> None:
    """A script that dies of a signal has that signal, and no exit code but 0."""
    job_id = await scheduler.submit(write_script("kill -KILL $$"), name="n", comment="c")
    record = await until_final(scheduler, job_id)
    assert (record.state, record.exit_code, record.signal) == (JobState.FAILED, 0, 9)


async def test_the_queue_holds_waiting_running_and_ended_jobs(
    contractor: Contractor, submitted: list[str], write_script: WriteScript
) -> None:
    """One query tells of all of them."""
    scheduler = contractor.scheduler
    ended = await scheduler.submit(write_script("exit 3"), name="n", comment="c")
    await until_final(scheduler, ended)
    for _ in range(max(1, contractor.slots)):
        submitted.append(await scheduler.submit(write_script("sleep 300"), name="run", comment="c"))
    waiting = write_script("sleep 300", options=("--hold",))
    submitted.append(await scheduler.submit(waiting, name="wait", comment="c"))
    await until_state(scheduler, submitted[0], JobState.RUNNING)
    states = {job.job_id: job for job in (await scheduler.queue()).records}
    assert states[ended].state is JobState.FAILED
    assert states[ended].exit_code == 3
    assert states[submitted[0]].state is JobState.RUNNING
    assert states[submitted[-1]].state is JobState.PENDING
    assert states[submitted[-1]].reason in {"JobHeldUser", "Resources"}
    assert states[submitted[-1]].start_time is None


async def test_a_waiting_job_can_be_canceled(
    contractor: Contractor, submitted: list[str], write_script: WriteScript, tmp_path: Path
) -> None:
    """It is CANCELLED at once and never starts."""
    scheduler = contractor.scheduler
    for _ in range(contractor.slots):
        submitted.append(await scheduler.submit(write_script("sleep 300"), name="n", comment="c"))
    script = write_script(f"touch {tmp_path}/started", options=("--hold",))
    job_id = await scheduler.submit(script, name="n", comment="c")
    assert (await scheduler.show(job_id)).state is JobState.PENDING
    await scheduler.cancel(job_id)
    assert (await until_final(scheduler, job_id)).state is JobState.CANCELLED
    assert not (tmp_path / "started").exists()


async def test_a_running_job_can_be_canceled_with_all_its_processes(
    scheduler: Scheduler, submitted: list[str], write_script: WriteScript, tmp_path: Path
) -> None:
    """Neither the script nor what it started in the background is left."""
    pids = tmp_path / "pids"
    script = write_script(
        "trap '' TERM", "setsid sleep 300 &", f"echo $$ $! > {pids}", "while :; do sleep 1; done"
    )
    job_id = await scheduler.submit(script, name="n", comment="c")
    submitted.append(job_id)
    processes = [int(pid) for pid in (await until_text(pids)).split()]
    await scheduler.cancel(job_id)
    assert (await until_final(scheduler, job_id)).state is JobState.CANCELLED
    await until(lambda: not any(_lives(pid) for pid in processes), f"the end of {processes}")


async def test_canceling_what_has_ended_or_never_was_is_no_error(
    scheduler: Scheduler, write_script: WriteScript
) -> None:
    """Cancel is idempotent."""
    job_id = await scheduler.submit(write_script("true"), name="n", comment="c")
    await until_final(scheduler, job_id)
    await scheduler.cancel(job_id)
    await scheduler.cancel("987654" if scheduler.name == "slurm" else "local-987654")
    assert (await scheduler.show(job_id)).state is JobState.COMPLETED


async def test_a_signal_reaches_the_script(
    contractor: Contractor, submitted: list[str], write_script: WriteScript, tmp_path: Path
) -> None:
    """The batch process gets it and decides itself what follows."""
    scheduler = contractor.scheduler
    if "signal" in contractor.lacks:
        pytest.skip(contractor.lacks["signal"])
    script = write_script(
        "trap 'exit 7' USR1", f"echo ready > {tmp_path}/ready", "while :; do sleep 0.1; done"
    )
    job_id = await scheduler.submit(script, name="n", comment="c")
    submitted.append(job_id)
    await until_text(tmp_path / "ready")
    await scheduler.signal(job_id, "USR1")
    record = await until_final(scheduler, job_id)
    assert (record.state, record.exit_code) == (JobState.FAILED, 7)


async def test_an_unknown_job_is_not_found(scheduler: Scheduler) -> None:
    """show and signal say so; absence of a job is an error of its own."""
    unknown = "987654" if scheduler.name == "slurm" else "local-987654"
    with pytest.raises(JobNotFoundError):
        await scheduler.show(unknown)
    with pytest.raises(JobNotFoundError):
        await scheduler.signal(unknown, "TERM")


async def test_a_job_is_found_by_comment_and_by_name(
    scheduler: Scheduler, write_script: WriteScript
) -> None:
    """Where comments get lost the name still tells which job it is."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    key = f"run-{os.urandom(5).hex()}"
    by_comment = await scheduler.submit(write_script("true"), name="other", comment=key)
    by_name = await scheduler.submit(write_script("true"), name=f"hpc-agent:{key}", comment="")
    found = {job.job_id for job in (await scheduler.find(key, since=since)).records}
    assert found == {by_comment, by_name}
    assert not (await scheduler.find(f"{key}0", since=since)).records


async def test_a_job_is_found_by_its_directory(
    scheduler: Scheduler, tmp_path: Path, submitted: list[str]
) -> None:
    """A site's job_submit plugin may rewrite comment and name: the script's place stays."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    key = f"run-{os.urandom(5).hex()}"
    directory = tmp_path / "jobs" / key
    directory.mkdir(parents=True)
    script = directory / "job.sh"
    script.write_text("#!/bin/bash\n#SBATCH --output=/dev/null\n#SBATCH --hold\ntrue\n")
    submitted += [await scheduler.submit(script, name="rewritten", comment="too")]
    submitted += [await scheduler.submit(script, name="rewritten", comment="again")]
    look = await scheduler.find(key, since=since)
    assert {job.job_id for job in look.records} == set(submitted)
    assert look.is_complete, look.unreadable


async def test_a_job_is_cancelled_by_its_name_alone(
    scheduler: Scheduler, submitted: list[str], write_script: WriteScript
) -> None:
    """An id that was given again is a stranger's: its name says so, and it goes on."""
    script = write_script("sleep 300")
    job_id = await scheduler.submit(script, name="hpc-agent:mine", comment="c")
    submitted.append(job_id)
    await until_state(scheduler, job_id, JobState.RUNNING)
    await scheduler.cancel(job_id, name="hpc-agent:another")
    await scheduler.cancel("987654" if scheduler.name == "slurm" else "local-987654", name="n")
    assert _the(job_id, await scheduler.queue()).state is JobState.RUNNING
    await scheduler.cancel(job_id, name="hpc-agent:mine")
    assert (await until_final(scheduler, job_id)).state is JobState.CANCELLED
    await scheduler.cancel(job_id, name="hpc-agent:mine")


async def test_a_task_is_cancelled_by_its_name_and_its_neighbours_are_not(
    scheduler: Scheduler, submitted: list[str], write_script: WriteScript
) -> None:
    """``scancel --name=NAME 17_3`` would end all tasks that wait (22.05 to 26.05)."""
    if await scheduler.max_array_size() < 2:
        pytest.skip("this scheduler has no arrays")
    script = write_script("sleep 300", options=("--hold",))
    array = await scheduler.submit_array(script, name="hpc-agent:a, b", comment="c", size=4)
    submitted.append(array)
    await scheduler.cancel(task_id(array, 2), name="hpc-agent:another")
    await scheduler.cancel(task_id(array, 1), name="hpc-agent:a, b")
    look = await scheduler.queue()
    waiting = {job.job_id for job in look.records if job.state is JobState.PENDING}
    tasks = {task_id(array, index) for index in range(4)}
    assert waiting & tasks == tasks - {task_id(array, 1)}


async def test_many_are_cancelled_at_once_each_by_its_own_name(
    scheduler: Scheduler, submitted: list[str], write_script: WriteScript
) -> None:
    """Those with another name, those that are gone and their neighbours are no reason to stop."""
    script = write_script("sleep 300")
    mine = {}
    for name in ("hpc-agent:one", "hpc-agent:a, b", "hpc-agent:left", "hpc-agent:over"):
        job_id = await scheduler.submit(script, name=name, comment="c")
        submitted.append(job_id)
        mine[job_id] = name
    one, other, left, over = mine
    await scheduler.cancel(over)
    await until_final(scheduler, over)
    unknown = "987654" if scheduler.name == "slurm" else "local-987654"
    await scheduler.cancel_all({**mine, left: "hpc-agent:another", unknown: "n"})
    for job_id in (one, other):
        assert (await until_final(scheduler, job_id)).state is JobState.CANCELLED
    assert not _the(left, await scheduler.queue()).state.is_final


async def test_tasks_are_cancelled_at_once_and_their_neighbours_are_not(
    scheduler: Scheduler, submitted: list[str], write_script: WriteScript
) -> None:
    """Some of an array that waits, beside a job."""
    if await scheduler.max_array_size() < 2:
        pytest.skip("this scheduler has no arrays")
    script = write_script("sleep 300", options=("--hold",))
    array = await scheduler.submit_array(script, name="hpc-agent:all", comment="c", size=5)
    alone = await scheduler.submit(script, name="hpc-agent:alone", comment="c")
    submitted += [array, alone]
    chosen = {task_id(array, index): "hpc-agent:all" for index in (1, 3)}
    stranger = {task_id(array, 2): "hpc-agent:another"}
    await scheduler.cancel_all({**chosen, **stranger, alone: "hpc-agent:alone"})
    look = await scheduler.queue()
    waiting = {job.job_id for job in look.records if job.state is JobState.PENDING}
    assert waiting & {*(task_id(array, index) for index in range(5)), alone} == {
        task_id(array, index) for index in (0, 2, 4)
    }


async def test_an_array_is_cancelled_by_its_name_as_a_whole(
    scheduler: Scheduler, submitted: list[str], write_script: WriteScript
) -> None:
    """Tasks that run and tasks that wait, which leave no trace; by another name none of them."""
    if await scheduler.max_array_size() < 2:
        pytest.skip("this scheduler has no arrays")
    # More tasks than there are processors: some of them wait.
    script = write_script("sleep 300", options=("--mem=1M",))
    array = await scheduler.submit_array(script, name="hpc-agent:all", comment="c", size=12)
    submitted.append(array)
    await until_state(scheduler, task_id(array, 0), JobState.RUNNING)
    await scheduler.cancel(array, name="hpc-agent:another")
    tasks = {task_id(array, index) for index in range(12)}

    async def left() -> int:
        look = await scheduler.queue()
        return len(tasks & {job.job_id for job in look.records if not job.state.is_final})

    assert await left() == 12
    await scheduler.cancel(array, name="hpc-agent:all")
    async with asyncio.timeout(60):
        while await left():  # noqa: ASYNC110  (Slurm rings no bell)
            await asyncio.sleep(0.2)


async def test_a_job_keeps_off_nodes(
    scheduler: Scheduler, submitted: list[str], write_script: WriteScript
) -> None:
    """Those that it is told, and those that its script excludes itself."""
    if scheduler.name != "slurm":
        pytest.skip("there is one node")
    one, other = sorted(node.name for node in await scheduler.nodes())
    script = write_script("sleep 300")
    submitted.append(await scheduler.submit(script, name="n", comment="c", exclude=[one]))
    await until_state(scheduler, submitted[0], JobState.RUNNING)
    assert _the(submitted[0], await scheduler.queue()).nodes == other
    picky = write_script("sleep 300", options=(f"--exclude={one}",))
    with pytest.raises(SubmitRefusedError, match=r"(?i)requested node"):
        submitted.append(await scheduler.submit(picky, name="n", comment="c", exclude=[other]))
    with pytest.raises(SubmitRefusedError, match=r"(?i)requested node"):
        submitted.append(
            await scheduler.submit_array(picky, name="n", comment="c", size=2, exclude=[other])
        )


async def test_hostile_names_are_only_text(
    scheduler: Scheduler, write_script: WriteScript, tmp_path: Path
) -> None:
    """Names and comments come back as they were, in every query, and do nothing."""
    script = write_script("exit 3", options=(f"--chdir={tmp_path}",))
    texts = {await scheduler.submit(script, name=text, comment=text): text for text in HOSTILE}
    for job_id, text in texts.items():
        shown = await until_final(scheduler, job_id)
        assert (shown.name, shown.comment, shown.exit_code) == (text, text, 3)
        queued = _the(job_id, await scheduler.queue())
        assert (queued.name, queued.comment, queued.exit_code) == (text, text, 3)
    assert not (tmp_path / "injected").exists()


async def test_the_environment_of_the_agent_stays_out_of_jobs(
    scheduler: Scheduler,
    write_script: WriteScript,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--export=NIL: only what the script and the scheduler set."""
    monkeypatch.setenv("AGENT_TOKEN", "secret")
    job_id = await scheduler.submit(write_script("env"), name="n", comment="c")
    await until_final(scheduler, job_id)
    output = await until_text(tmp_path / f"{job_id}.out")
    assert "secret" not in output
    assert "SLURM_TIME_FORMAT" not in output
    assert f"SLURM_JOB_ID={job_id}\n" in output
    assert "SLURMD_NODENAME=" in output


async def test_what_is_no_script_is_refused(scheduler: Scheduler, tmp_path: Path) -> None:
    """Missing, empty and without an interpreter: the reason is in the error."""
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.touch()
    text.write_text("echo no interpreter\n")
    for path in (tmp_path / "missing", empty, text):
        with pytest.raises(SubmitRefusedError, match=r"script|open file|No such file"):
            await scheduler.submit(path, name="n", comment="c")


async def test_the_scheduler_describes_itself(scheduler: Scheduler) -> None:
    """Version, health, partitions and nodes."""
    assert (await scheduler.version()).startswith(scheduler.name)
    assert await scheduler.healthy()
    partitions = await scheduler.partitions()
    nodes = await scheduler.nodes()
    assert {name for node in nodes for name in node.partitions} == {p.name for p in partitions}
    assert all(node.cpus > 0 and node.memory_mb > 0 for node in nodes)


async def test_one_partition_is_the_default(contractor: Contractor) -> None:
    """It is the one for jobs that name none."""
    if "default partition" in contractor.lacks:
        pytest.skip(contractor.lacks["default partition"])
    partitions = await contractor.scheduler.partitions()
    assert sum(partition.is_default for partition in partitions) == 1


async def test_nothing_blocks_the_event_loop(
    scheduler: Scheduler, write_script: WriteScript
) -> None:
    """No file, process or lock is waited for in the loop's own thread."""
    script = write_script("true")
    since = datetime.now(UTC) - timedelta(minutes=1)
    with blockbuster_ctx():
        job_id = await scheduler.submit(script, name="n", comment="c")
        await until_final(scheduler, job_id)
        await scheduler.queue()
        await scheduler.history([job_id], since=since)
        await scheduler.find("c", since=since)
        await scheduler.cancel(job_id)
        with pytest.raises(JobNotFoundError):
            await scheduler.signal(job_id, "TERM")
        assert await scheduler.healthy()
        assert await scheduler.version()
        assert await scheduler.nodes()
        assert await scheduler.partitions()


def _the(job_id: str, look: Look) -> JobRecord:
    assert look.is_complete, look.unreadable
    (record,) = [job for job in look.records if job.job_id == job_id]
    return record


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
