"""pyslurm in a process of its own: its deadlines, deaths and oddities, by a stand-in's orders."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from blockbuster import blockbuster_ctx

from hpc_agent.cluster.transports import open_runner, open_scheduler
from hpc_agent.config import parse_config
from hpc_agent.errors import (
    JobNotFoundError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.slurm.cli import SlurmCli
from hpc_agent.slurm.commands import ProcessRunner
from hpc_agent.slurm.pyslurm_process import HELPER, CallError, PyslurmProcess, mismatch
from hpc_agent.slurm.pyslurm_transport import PyslurmScheduler, may_have_made_a_job
from hpc_agent.slurm.rate import TokenBucket
from hpc_agent.slurm.scheduler import task_id
from hpc_agent.slurm.state import JobState
from tests.cluster import SlurmCluster
from tests.slurm.conftest import WriteScript
from tests.slurm.stand_in import StandIn, pyslurm_scheduler, write_metadata
from tests.slurm.waiting import until, until_final, until_state, until_text

LOST = "a job may exist"
WHATEVER = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def stand_in(tmp_path: Path, slurm_cluster: SlurmCluster) -> StandIn:
    return StandIn(tmp_path, slurm_cluster)


@pytest.fixture
async def scheduler(stand_in: StandIn) -> AsyncIterator[PyslurmScheduler]:
    """With deadlines of three seconds, so that a hanging call ends soon."""
    opened = pyslurm_scheduler(stand_in.cluster, stand_in.environment, seconds=3.0)
    yield opened
    await opened.close()


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[PyslurmProcess]:
    """A process without any Slurm, whose Python has whatever a test writes."""
    process = _process(tmp_path)
    yield process
    await process.close()


def _process(
    directory: Path, *, python: Path | None = None, seconds: float = 5.0
) -> PyslurmProcess:
    async def version() -> str:
        return "slurm 24.11.5"

    path = os.pathsep.join([str(directory), str(directory / "metadata")])
    environment = {"PYTHONPATH": path, "PATH": os.environ["PATH"]}
    return PyslurmProcess(
        python, environment=environment, slurm_version=version, import_timeout_seconds=seconds
    )


def _pid(scheduler: PyslurmScheduler) -> int:
    pid = scheduler.process.pid
    assert pid is not None
    return pid


@pytest.mark.slurm
async def test_a_submission_goes_through_pyslurm(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript, tmp_path: Path
) -> None:
    """With the script's own options and nothing of the helper's environment."""
    script = write_script(
        "env", "pwd", options=(f"--chdir={tmp_path}", "--time=7", "--no-requeue", "--mem=10M")
    )
    stand_in.order("submitted", "print")
    job_id = await scheduler.submit(script, name="n", comment="c")
    assert not (tmp_path / "submitted").exists()
    record = await until_final(scheduler, job_id)
    assert (record.source, record.time_limit_seconds) == ("pyslurm", 420)
    output = await until_text(tmp_path / f"{job_id}.out")
    assert output.endswith(f"{tmp_path}\n")
    assert "PYTHONPATH" not in output
    assert "PYSLURM_STAND_IN" not in output


@pytest.mark.slurm
async def test_agent_yaml_asks_for_it(
    stand_in: StandIn, write_script: WriteScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its transport and a Python; nothing is left when the scheduler is closed."""
    for name, value in stand_in.environment.items():
        monkeypatch.setenv(name, value)
    content = {
        "control_plane": {"url": "https://plane"},
        "work_dir": str(tmp_path),
        "home": str(tmp_path / "home"),
        "scheduler": {"transport": "pyslurm", "pyslurm": {"python": sys.executable}},
    }
    config = parse_config(content, source="test")
    async with open_runner(config) as runner, open_scheduler(config, runner) as opened:
        job_id = await opened.submit(write_script("true"), name="n", comment="c")
        assert (await until_final(opened, job_id)).source == "pyslurm"
        (helper,) = [child for child in psutil.Process().children() if _is_helper(child)]
    assert not helper.is_running()


@pytest.mark.slurm
async def test_options_that_pyslurm_cannot_set_go_through_sbatch(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript, tmp_path: Path
) -> None:
    """Nothing is dropped: the job is held, and pyslurm was not asked."""
    stand_in.order("submit", "abort")
    held = await scheduler.submit(write_script("x", options=("--hold",)), name="n", comment="c")
    try:
        assert (await scheduler.show(held)).reason == "JobHeldUser"
    finally:
        await scheduler.cancel(held)
    assert (tmp_path / "submit").exists()


@pytest.mark.slurm
async def test_a_refusal_is_told_by_sbatch(
    scheduler: PyslurmScheduler, write_script: WriteScript
) -> None:
    """In its own words, which are more than libslurm's."""
    script = write_script("true", options=("--partition=nope",))
    with pytest.raises(SubmitRefusedError, match=r"sbatch: .*invalid partition"):
        await scheduler.submit(script, name="n", comment="c")


@pytest.mark.slurm
@pytest.mark.parametrize("order", ["abort", "exit"])
async def test_a_death_during_a_submission_is_ambiguous(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript, order: str
) -> None:
    """The job may be there, and here it is; the next call has a new process."""
    stand_in.order("submitted", order)
    script = write_script("true")
    with pytest.raises(SubmitAmbiguousError, match=LOST):
        await scheduler.submit(script, name="n", comment=f"lost-{order}")
    (found,) = (await scheduler.find(f"lost-{order}", since=WHATEVER)).records
    assert (await until_final(scheduler, found.job_id)).source == "pyslurm"


@pytest.mark.slurm
async def test_a_late_submission_is_ambiguous_and_the_next_call_works(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript
) -> None:
    """The process is killed by its deadline, and another one started at once."""
    script = write_script("true")
    first = await scheduler.submit(script, name="n", comment="c")
    pid = _pid(scheduler)
    stand_in.order("submit", "hang")
    with pytest.raises(SubmitAmbiguousError, match="within 3 s"):
        await scheduler.submit(script, name="n", comment="c")
    assert not psutil.pid_exists(pid)
    second = await scheduler.submit(script, name="n", comment="c")
    assert int(second) > int(first)
    assert _pid(scheduler) != pid


@pytest.mark.slurm
async def test_a_look_that_is_late_has_learned_nothing(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript
) -> None:
    """It is no absence of the job."""
    job_id = await scheduler.submit(write_script("true"), name="n", comment="c")
    stand_in.order("show", "hang")
    with pytest.raises(SchedulerUnavailableError, match="no answer to show"):
        await scheduler.show(job_id)
    assert (await scheduler.show(job_id)).job_id == job_id


@pytest.mark.slurm
async def test_a_call_whose_caller_went_away_does_not_answer_the_next(
    scheduler: PyslurmScheduler, write_script: WriteScript
) -> None:
    """Answers have the numbers of their requests."""
    jobs = [await scheduler.submit(write_script("true"), name=n, comment="c") for n in ("a", "b")]
    await until_final(scheduler, jobs[0])
    await until_final(scheduler, jobs[1])
    asking = asyncio.create_task(scheduler.show(jobs[0]))
    await asyncio.sleep(0.002)
    asking.cancel()
    assert (await scheduler.show(jobs[1])).name == "b"


@pytest.mark.slurm
async def test_noise_on_stdout_does_not_corrupt_answers(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript
) -> None:
    """Even noise that looks like an answer."""
    for call in ("import", "submit", "show"):
        stand_in.order(call, "print")
    job_id = await scheduler.submit(write_script("true"), name="n", comment="c")
    assert job_id != "999999"
    assert (await scheduler.show(job_id)).name == "n"


@pytest.mark.slurm
async def test_lost_messages_of_slurm_are_ambiguous(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript
) -> None:
    """As after an sbatch that says the same."""
    stand_in.order("submit", "error 5004 Socket timed out on send/recv operation")
    with pytest.raises(SubmitAmbiguousError, match="Socket timed out"):
        await scheduler.submit(write_script("true"), name="n", comment="c")


@pytest.mark.slurm
async def test_a_failed_cancel_is_made_good_by_scancel(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript
) -> None:
    """The error may be an old errno; canceling twice does no harm."""
    job_id = await scheduler.submit(write_script("sleep 300"), name="n", comment="c")
    stand_in.order("cancel", "error 2 No such file or directory")
    await scheduler.cancel(job_id)
    assert (await until_final(scheduler, job_id)).state is JobState.CANCELLED


@pytest.mark.slurm
async def test_an_unknown_job_is_canceled_without_a_word_and_not_found(
    scheduler: PyslurmScheduler,
) -> None:
    """pyslurm returns None for it."""
    await scheduler.cancel("987654")
    with pytest.raises(JobNotFoundError, match="Invalid job id"):
        await scheduler.show("987654")


@pytest.mark.slurm
async def test_exit_codes_above_127_are_whole(
    scheduler: PyslurmScheduler, write_script: WriteScript
) -> None:
    """pyslurm takes 128 off."""
    for code in (128, 143):
        job_id = await scheduler.submit(write_script(f"exit {code}"), name="n", comment="c")
        record = await until_final(scheduler, job_id)
        assert (record.exit_code, record.source) == (code, "scontrol")


@pytest.mark.slurm
async def test_tasks_of_an_array_are_told_apart(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript, tmp_path: Path
) -> None:
    """Also the task 0, which is None to pyslurm."""
    stand_in.order("submitted", "print")
    script = write_script("sleep 300", options=(f"--output={tmp_path}/%a.out",))
    array = await scheduler.submit_array(script, name="n", comment="c", size=3)
    assert not (tmp_path / "submitted").exists()
    tasks = [task_id(array, index) for index in range(3)]
    try:
        assert [(await scheduler.show(task)).job_id for task in tasks] == tasks
        queued = {job.job_id for job in (await scheduler.queue()).records}
        assert set(tasks) <= queued
        await until_state(scheduler, tasks[0], JobState.RUNNING)
        assert (await scheduler.show(array)).job_id == array
        await scheduler.cancel(tasks[0])
        assert (await until_final(scheduler, tasks[0])).state is JobState.CANCELLED
        assert not (await scheduler.show(tasks[1])).state.is_final
    finally:
        await scheduler.cancel(array)
    for task in tasks:
        assert (await until_final(scheduler, task)).state is JobState.CANCELLED


@pytest.mark.slurm
async def test_without_pyslurm_orders_about_jobs_go_by_commands(
    slurm: SlurmCli, slurm_cluster: SlurmCluster, write_script: WriteScript
) -> None:
    """A submission says what is missing: nothing was sent."""
    scheduler = pyslurm_scheduler(slurm_cluster, slurm_cluster.environment)
    script = write_script("sleep 300")
    with pytest.raises(SchedulerUnavailableError, match="has no pyslurm: install pyslurm"):
        await scheduler.submit(script, name="n", comment="c")
    job_id = await slurm.submit(script, name="n", comment="c")
    assert (await scheduler.show(job_id)).source == "scontrol"
    await scheduler.cancel(job_id)
    assert (await until_final(scheduler, job_id)).state is JobState.CANCELLED


@pytest.mark.slurm
async def test_nothing_is_left_behind(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript
) -> None:
    """Closed in the middle of a call; neither the helper nor what it started goes on."""
    await scheduler.submit(write_script("true"), name="n", comment="c")
    helper = psutil.Process(_pid(scheduler))
    stand_in.order("submit", "hang")
    submitting = asyncio.create_task(scheduler.submit(write_script("true"), name="n", comment="c"))
    await until(lambda: not (stand_in.directory / "submit").exists(), "the order")
    await scheduler.close()
    with pytest.raises(SubmitAmbiguousError):
        await submitting
    assert not helper.is_running()


@pytest.mark.slurm
async def test_faults_do_not_block_the_event_loop(
    scheduler: PyslurmScheduler, stand_in: StandIn, write_script: WriteScript
) -> None:
    """A death and a deadline, and the start after each."""
    script = write_script("true")
    stand_in.order("submit", "abort")
    stand_in.order("show", "hang")
    with blockbuster_ctx():
        with pytest.raises(SubmitAmbiguousError, match="SIGABRT"):
            await scheduler.submit(script, name="n", comment="c")
        job_id = await scheduler.submit(script, name="n", comment="c")
        with pytest.raises(SchedulerUnavailableError):
            await scheduler.show(job_id)
        await scheduler.cancel(job_id)
        await scheduler.close()


async def test_absent_pyslurm_is_named(bare: PyslurmProcess) -> None:
    """With what to install where, and the way out."""
    with pytest.raises(SchedulerUnavailableError) as raised:
        await bare.start()
    assert f"{sys.executable} has no pyslurm: install pyslurm 24.11.x there" in str(raised.value)
    assert "set scheduler.transport to cli" in str(raised.value)
    assert bare.pid is None


async def test_another_release_is_not_imported(bare: PyslurmProcess, tmp_path: Path) -> None:
    """Its calls could abort."""
    write_metadata(tmp_path, "25.11.2")
    (tmp_path / "pyslurm.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    with pytest.raises(SchedulerUnavailableError, match=r"25\.11\.2 .*not built for this slurm 24"):
        await bare.start()
    assert not (tmp_path / "imported").exists()


async def test_import_that_ends_the_interpreter_is_explained(
    bare: PyslurmProcess, tmp_path: Path
) -> None:
    """As it does without a configuration of Slurm; its last words are told."""
    write_metadata(tmp_path, "24.11.0")
    code = "import os\nos.write(2, b'fatal: no configuration source')\nos._exit(1)"
    (tmp_path / "pyslurm.py").write_text(code)
    with pytest.raises(
        SchedulerUnavailableError, match=r"exit code 1 \(fatal: no conf.*slurm_conf"
    ):
        await bare.start()


async def test_import_that_fails_is_explained(bare: PyslurmProcess, tmp_path: Path) -> None:
    """As with another libslurm than it was built with."""
    write_metadata(tmp_path, "24.11.0")
    (tmp_path / "pyslurm.py").write_text("raise ImportError('libslurm.so.42: cannot open')")
    with pytest.raises(SchedulerUnavailableError, match=r"libslurm\.so\.42: cannot open.*Build"):
        await bare.start()


async def test_import_has_a_deadline(tmp_path: Path) -> None:
    """It would retry for a minute."""
    write_metadata(tmp_path, "24.11.0")
    (tmp_path / "pyslurm.py").write_text("import time; time.sleep(60)")
    process = _process(tmp_path, seconds=1.0)
    with pytest.raises(SchedulerUnavailableError, match="no answer to import within 1 s"):
        await process.start()


async def test_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the setting to change."""
    process = _process(tmp_path, python=tmp_path / "python")
    with pytest.raises(
        SchedulerUnavailableError, match=r"No such file.*scheduler\.pyslurm\.python"
    ):
        await process.start()


async def test_starts_that_fail_are_tried_at_growing_intervals(tmp_path: Path) -> None:
    """In between the same words are said, and nothing is started."""
    now, asked = [0.0], 0

    async def version() -> str:
        nonlocal asked
        asked += 1
        return "slurm 24.11.5"

    process = PyslurmProcess(
        environment={"PATH": os.environ["PATH"]}, slurm_version=version, clock=lambda: now[0]
    )
    tries = []
    for _ in range(12):
        with pytest.raises(SchedulerUnavailableError, match="has no pyslurm"):
            await process.start()
        tries.append(asked)
        now[0] += 0.5
    assert tries == [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4]


async def test_a_helper_ends_with_its_agent(tmp_path: Path) -> None:
    """Also one that hangs: the kernel sees to it."""
    write_metadata(tmp_path, "24.11.0")
    hanging = f"""
import os, pathlib, time
pathlib.Path({str(tmp_path)!r}, "pid").write_text(str(os.getpid()))
time.sleep(60)
"""
    (tmp_path / "pyslurm.py").write_text(hanging)
    code = """
import asyncio, pathlib, sys
from tests.slurm import test_pyslurm
asyncio.run(test_pyslurm._process(pathlib.Path(sys.argv[1])).start())
"""
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path), cwd=Path(__file__).parents[2]
    )
    pid = int(await until_text(tmp_path / "pid"))
    agent.kill()
    await agent.wait()
    await until(lambda: not psutil.pid_exists(pid), "the end of the helper")


@pytest.mark.parametrize(
    ("release", "version", "fits"),
    [
        ("24.11.0", "slurm 24.11.5", True),
        ("24.5.1", "slurm 24.05.3", True),
        ("25.11.2", "slurm 25.05.0", False),
        ("25.11.2", "slurm 26.11.0", False),
        (None, "slurm 24.11.5", False),
        ("24.11.0", "slurm", False),
    ],
)
def test_releases_match_by_two_numbers(release: str | None, version: str, fits: bool) -> None:
    """As numbers: Python's versions have no leading zeros."""
    assert (mismatch(release, version, python="python") is None) is fits


@pytest.mark.parametrize(
    ("kind", "errno", "message", "unsure"),
    [
        ("unsent", None, "ValueError: no script", False),
        ("failed", None, "MemoryError", True),
        ("rpc", 2000, "Invalid partition name specified", False),
        ("rpc", 1800, "Unable to contact slurm controller (connect failure)", False),
        ("rpc", 5004, "Socket timed out on send/recv operation", True),
        ("rpc", 11, "Resource temporarily unavailable", True),
        ("rpc", None, "unknown", True),
    ],
)
def test_only_a_sure_no_is_one(kind: str, errno: int | None, message: str, unsure: bool) -> None:
    """Below 2000 errors are those of the connection, not slurmctld's answers."""
    error = CallError(kind=kind, errno=errno, message=message)
    assert may_have_made_a_job(error) is unsure


async def test_plugins_of_sbatch_keep_submissions_to_it(
    tmp_path: Path, write_script: WriteScript
) -> None:
    """A site's cli_filter sees every job, and is asked for once."""
    fakes = {
        "scontrol": f"echo >> {tmp_path}/asked; printf '"
        "CliFilterPlugins = cli_filter/lua\\nClusterName = c\\nSLURM_VERSION = 24.11.5\\n'",
        "sbatch": "echo 17",
    }
    for name, line in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    runner = ProcessRunner({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    process = _process(tmp_path)
    scheduler = PyslurmScheduler(SlurmCli(runner), process, TokenBucket())
    script = write_script("true")
    assert await scheduler.submit(script, name="n", comment="c") == "17"
    assert await scheduler.submit_array(script, name="n", comment="c", size=2) == "17"
    assert process.pid is None
    assert (tmp_path / "asked").read_text() == "\n"


def _is_helper(process: psutil.Process) -> bool:
    """Among the children there may be those of other tests, ended and not yet waited for."""
    try:
        return str(HELPER) in process.cmdline()
    except psutil.NoSuchProcess:  # a zombie is one
        return False
