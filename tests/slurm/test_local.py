"""What only the local scheduler does: slots, limits, and jobs that outlive the agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hpc_agent.errors import SchedulerUnreadableError
from hpc_agent.slurm.local import LocalScheduler
from hpc_agent.slurm.local_files import JobDirectory, living_pid
from hpc_agent.slurm.state import JobState
from tests.slurm.conftest import WriteScript
from tests.slurm.waiting import until, until_final, until_state, until_text


async def test_jobs_beyond_the_slots_wait_their_turn(
    local: LocalScheduler, write_script: WriteScript, tmp_path: Path
) -> None:
    """The third of two slots starts when one is free, without anyone asking for it."""
    gate = tmp_path / "gate"
    script = write_script(f"while [ ! -e {gate} ]; do sleep 0.05; done")
    first, second, third = [await local.submit(script, name="n", comment="c") for _ in range(3)]
    await until_state(local, first, JobState.RUNNING)
    await until_state(local, second, JobState.RUNNING)
    waiting = await local.show(third)
    assert (waiting.state, waiting.reason) == (JobState.PENDING, "Resources")
    gate.touch()
    end = tmp_path / "local" / "jobs" / third / "end.json"
    await until(end.exists, "the end of the third job")
    assert (await local.show(third)).state is JobState.COMPLETED


async def test_a_job_beyond_its_time_limit_is_ended(
    local: LocalScheduler, write_script: WriteScript
) -> None:
    """TIMEOUT, as under Slurm."""
    script = write_script("sleep 300", options=("--time=0:01",))
    job_id = await local.submit(script, name="n", comment="c")
    record = await until_final(local, job_id)
    assert (record.state, record.reason) == (JobState.TIMEOUT, "TimeLimit")
    assert record.time_limit_seconds == 1


async def test_a_script_is_warned_before_its_time_limit(
    local: LocalScheduler, write_script: WriteScript
) -> None:
    """--signal=B:USR1@2 of three seconds comes after one."""
    script = write_script(
        "trap 'exit 9' USR1",
        "while :; do sleep 0.05; done",
        options=("--time=0:03", "--signal=B:USR1@2"),
    )
    job_id = await local.submit(script, name="n", comment="c")
    record = await until_final(local, job_id)
    assert (record.state, record.exit_code) == (JobState.FAILED, 9)


async def test_a_job_outlives_the_process_that_submitted_it(
    write_script: WriteScript, tmp_path: Path
) -> None:
    """Another scheduler on the same directory adopts it and learns its end."""
    gate = tmp_path / "gate"
    script = write_script(f"while [ ! -e {gate} ]; do sleep 0.05; done", "exit 4")
    submit = (
        "import asyncio, pathlib, sys; from hpc_agent.slurm.local import LocalScheduler\n"
        "print(asyncio.run(LocalScheduler(pathlib.Path(sys.argv[1]), slots=1)"
        ".submit(pathlib.Path(sys.argv[2]), name='n', comment='c')))"
    )
    job_id = subprocess.check_output(  # noqa: ASYNC221  # it must be another process, and ended
        [sys.executable, "-c", submit, str(tmp_path / "root"), str(script)], text=True
    ).strip()
    heir = LocalScheduler(tmp_path / "root", slots=1)
    await until_state(heir, job_id, JobState.RUNNING)
    gate.touch()
    record = await until_final(heir, job_id)
    assert (record.state, record.exit_code) == (JobState.FAILED, 4)


async def test_a_killed_worker_does_not_make_its_job_disappear(
    local: LocalScheduler, write_script: WriteScript, tmp_path: Path
) -> None:
    """The job is RUNNING while its processes live and can be canceled; then it has ended."""
    pid_file = tmp_path / "pid"
    job_id = await local.submit(
        write_script(f"echo $$ > {pid_file}", "exec sleep 300"), name="n", comment="c"
    )
    await until_text(pid_file)
    _kill_worker(tmp_path, job_id)
    assert (await local.show(job_id)).state is JobState.RUNNING
    await local.cancel(job_id)
    assert (await until_final(local, job_id)).state is JobState.CANCELLED


async def test_a_job_that_died_with_its_worker_is_a_node_failure(
    local: LocalScheduler, write_script: WriteScript, tmp_path: Path
) -> None:
    """Nobody saw its exit code: that is not success, and says what happened."""
    pid_file = tmp_path / "pid"
    job_id = await local.submit(
        write_script(f"echo $$ > {pid_file}", "exec sleep 300"), name="n", comment="c"
    )
    pid = int(await until_text(pid_file))
    _kill_worker(tmp_path, job_id)
    os.kill(pid, signal.SIGKILL)
    record = await until_final(local, job_id)
    assert (record.state, record.exit_code) == (JobState.NODE_FAIL, None)
    assert "worker died" in record.reason


async def test_an_output_file_that_cannot_be_made_fails_the_job_with_the_reason(
    local: LocalScheduler, write_script: WriteScript
) -> None:
    """The path is in the reason."""
    script = write_script("true", options=("--output=/nonexistent/x",))
    job_id = await local.submit(script, name="n", comment="c")
    record = await until_final(local, job_id)
    assert record.state is JobState.FAILED
    assert "/nonexistent/x" in record.reason


async def test_ids_increase_and_are_never_used_again(
    local: LocalScheduler, write_script: WriteScript, tmp_path: Path
) -> None:
    """Also by another scheduler on the same directory."""
    script = write_script("true")
    other = LocalScheduler(tmp_path / "local", slots=2)
    ids = [
        await scheduler.submit(script, name="n", comment="c") for scheduler in (local, other, local)
    ]
    assert ids == ["local-1", "local-2", "local-3"]
    for job_id in ids:
        await until_final(local, job_id)


@pytest.mark.parametrize("job_id", ["../../etc", "local-1/../..", "17", "local-x"])
async def test_a_strange_id_is_only_unknown(local: LocalScheduler, job_id: str) -> None:
    """No path is made of it."""
    await local.cancel(job_id)
    assert not (await local.queue()).records


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"state": 5}', "\0"])
async def test_a_job_whose_file_cannot_be_read_stops_no_other(
    local: LocalScheduler, write_script: WriteScript, tmp_path: Path, text: str
) -> None:
    """It is told, and no job is absent meanwhile; the others are read, run and end."""
    spoilt = await local.submit(write_script("true"), name="n", comment="c")
    await until_final(local, spoilt)
    other = LocalScheduler(tmp_path / "local", slots=2)  # which has not seen its end
    (tmp_path / "local" / "jobs" / spoilt / "end.json").write_text(text)
    (tmp_path / "local" / "jobs" / "local-strange").mkdir()
    job_id = await other.submit(write_script("true"), name="n", comment="c")
    assert (await until_final(other, job_id)).state is JobState.COMPLETED
    for look in (await other.queue(), await other.find("c", since=datetime.now(UTC))):
        assert [job.job_id for job in look.records] == [job_id]
        assert not look.is_complete
    with pytest.raises(SchedulerUnreadableError):
        await other.show(spoilt)
    (tmp_path / "local" / "jobs" / spoilt / "end.json").unlink()  # or nobody could cancel it


def _kill_worker(tmp_path: Path, job_id: str) -> None:
    start = JobDirectory(tmp_path / "local" / "jobs" / job_id).start
    assert start is not None
    pid = living_pid(start.worker)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def test_log_of_the_workers_is_put_away_when_it_is_large(
    local: LocalScheduler, write_script: WriteScript, tmp_path: Path
) -> None:
    """What is written there is of faults, and the last megabytes of them do."""
    log = tmp_path / "local" / "worker.log"
    for _ in range(2):
        log.write_bytes(b"x" * (1 << 21))
        await until_final(local, await local.submit(write_script("true"), name="n", comment="c"))
        assert log.stat().st_size == 0
    assert log.with_name("worker.log.1").stat().st_size == 1 << 21
