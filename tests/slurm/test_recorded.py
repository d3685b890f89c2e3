"""The parsers on what real clusters printed; one directory per version of Slurm."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest

from hpc_agent.errors import SchedulerUnreadableError
from hpc_agent.slurm import sacct, sbatch, scontrol, sinfo, squeue
from hpc_agent.slurm.scheduler import JobRecord, NodeInfo, PartitionInfo
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import RECORD
from tests.slurm.matrix import VERSIONS
from tests.slurm.recording import COMMENT, JOBS, NAME, TASKS, read

# What became of each job that tests/slurm/recording.py makes, as squeue has it.
ENDINGS = [
    ("timeout", JobState.TIMEOUT, 0, 15, "TimeLimit"),
    ("running", JobState.RUNNING, None, None, ""),
    ("failed-hostile-name", JobState.FAILED, 3, None, "NonZeroExitCode"),
    ("completed", JobState.COMPLETED, 0, None, ""),
    ("requeued", JobState.FAILED, 5, None, "NonZeroExitCode"),
    ("held", JobState.PENDING, None, None, "JobHeldUser"),
    ("begin", JobState.PENDING, None, None, "BeginTime"),
    ("pending", JobState.PENDING, None, None, "Resources"),
]

each_version = pytest.mark.parametrize("version", VERSIONS)


def queue(version: str) -> dict[str, JobRecord]:
    """Return the recorded squeue, by what the jobs are called."""
    look = squeue.parse(read("squeue.txt", version))
    assert (look.unreadable, look.noise) == ((), ())
    return {called(job): job for job in look.records}


def history(version: str) -> dict[str, JobRecord]:
    """Return the recorded sacct, by what the jobs are called."""
    look = sacct.parse(read("sacct.txt", version))
    assert (look.unreadable, look.noise) == ((), ())
    return {called(job): job for job in look.records}


def called(job: JobRecord) -> str:
    """Return what a job is called, by its script's directory."""
    name = Path(job.script).parent.name
    return f"{name}{job.job_id.partition('_')[2]}"


@each_version
def test_squeue(version: str) -> None:
    """State, how it ended, and why it waits; each task of an array is a job."""
    jobs = queue(version)
    for name, state, exit_code, signal, reason in ENDINGS:
        job = jobs[name]
        assert (job.state, job.exit_code, job.signal, job.reason) == (
            state,
            exit_code,
            signal,
            reason,
        ), name
        assert job.source == "squeue"
    assert (jobs["killed"].state, jobs["killed"].signal) == (JobState.FAILED, 9)
    assert jobs["canceled"].state is JobState.CANCELLED
    assert set(jobs) == {*JOBS, *(f"{TASKS}{index}" for index in range(4))}


@each_version
def test_squeue_times(version: str) -> None:
    """A waiting job has an expected start or none, a running one has no end yet."""
    jobs = queue(version)
    running, ended, waiting = jobs["running"], jobs["timeout"], jobs["pending"]
    assert running.submit_time is not None and running.start_time is not None
    assert running.submit_time <= running.start_time
    assert running.end_time is None
    assert running.time_limit_seconds == 2 * 86400 + 3 * 3600 + 5 * 60
    assert ended.start_time is not None and ended.end_time is not None
    assert ended.start_time < ended.end_time
    assert waiting.expected_start is not None and waiting.start_time is None
    assert jobs["held"].expected_start is None


@each_version
def test_squeue_free_text(version: str) -> None:
    """Names and comments with newlines, separators of other formats, and non-ASCII letters."""
    jobs = queue(version)
    failed, running = jobs["failed-hostile-name"], jobs["running"]
    assert (failed.name, failed.comment) == (NAME, COMMENT)
    assert (running.name, running.comment) == ("hpc-agent:run-running", "run-running")
    assert running.script.endswith("/running/job.sh")
    assert running.working_directory == "/tmp"


@each_version
def test_squeue_counts_restarts(version: str) -> None:
    """A requeue counts, and gives a new time of submission (22.05 to 26.05)."""
    jobs = queue(version)
    assert (jobs["requeued"].restarts, jobs["running"].restarts) == (1, 0)
    first, second = jobs["running"].submit_time, jobs["requeued"].submit_time
    assert first is not None and second is not None
    assert first < second


@each_version
def test_a_state_from_the_future_is_unknown_and_logged(
    caplog: pytest.LogCaptureFixture, version: str
) -> None:
    """Unknown is not an end, whatever its exit code says."""
    text = read("squeue.txt", version).replace("COMPLETED", "TELEPORTED")
    (job,) = [job for job in squeue.parse(text).records if called(job) == "completed"]
    assert (job.state, job.raw_state, job.exit_code) == (JobState.UNKNOWN, "TELEPORTED", None)
    assert "TELEPORTED" in caplog.text


def test_squeue_is_asked_for_whole_fields_all_states_and_hidden_partitions() -> None:
    """Width 0 is what keeps squeue from cutting at 20 characters."""
    argv = squeue.arguments()
    assert {"--states=all", "--me", "--all"} <= set(argv)
    columns = argv[-1].removeprefix("--Format=").split(",")
    assert all(":0" in column for column in columns)
    assert columns[-1] == f"Comment:0{RECORD}"


@each_version
def test_sacct(version: str) -> None:
    """The same ends; of an ended job its Reason is left out."""
    jobs = history(version)
    for name, state, exit_code, _, _ in ENDINGS:
        assert (jobs[name].state, jobs[name].exit_code) == (state, exit_code), name
    assert (jobs["killed"].state, jobs["killed"].signal) == (JobState.FAILED, 9)
    assert jobs["requeued"].reason == "", "why it waited before is not why it failed"


@each_version
def test_sacct_says_who_cancelled(version: str) -> None:
    """``CANCELLED by 0`` is CANCELLED, by the user 0, who made these recordings."""
    jobs = history(version)
    assert (jobs["canceled"].state, jobs["canceled"].cancelled_by) == (JobState.CANCELLED, 0)
    assert jobs["completed"].cancelled_by is None


@each_version
def test_sacct_keeps_the_last_attempt(version: str) -> None:
    """It was requeued at first and then failed with 5."""
    assert "REQUEUED" in read("sacct.txt", version)
    requeued = history(version)["requeued"]
    assert (requeued.state, requeued.exit_code) == (JobState.FAILED, 5)


@each_version
def test_sacct_free_text(version: str) -> None:
    """Slurm stores double quotes in names as back quotes; newlines stay."""
    failed = history(version)["failed-hostile-name"]
    assert (failed.name, failed.comment) == (NAME.replace('"', "`"), COMMENT)
    assert failed.script.endswith("/failed-hostile-name/job.sh")
    assert failed.working_directory == "/tmp"


@each_version
def test_sacct_times_and_limits(version: str) -> None:
    """Epoch seconds, and minutes of the limit."""
    running, queued = history(version)["running"], queue(version)["running"]
    assert running.submit_time == queued.submit_time is not None
    assert running.time_limit_seconds == 2 * 86400 + 3 * 3600 + 5 * 60
    assert running.end_time is None


def test_sacct_asks_for_duplicates_since_a_time() -> None:
    """The time is UTC, as TZ is."""
    since = datetime.fromisoformat("2026-01-02T03:04:05+01:00")
    argv = sacct.arguments(["1", "2"], since=since)
    assert "--duplicates" in argv
    assert "--starttime=2026-01-02T02:04:05" in argv
    assert argv[-1] == "--jobs=1,2"


@each_version
def test_a_prolog_that_fails_cancels_a_job_that_is_not_to_be_requeued(version: str) -> None:
    """By the user 0, with exit code 0 and an end in the second of its start.

    squeue has all but who did it. 22.05 may account for the end before it has the name.
    """
    records = squeue.parse(read("squeue-prolog.txt", version)).records
    (queued,) = [job for job in records if called(job) == "prolog-no-requeue"]
    accounted = {job.job_id: job for job in sacct.parse(read("sacct-prolog.txt", version)).records}
    for job in (queued, accounted[queued.job_id]):
        assert (job.state, job.exit_code, job.signal) == (JobState.CANCELLED, 0, None)
        assert (job.reason, job.restarts, job.nodes) == ("", 0, "c1")
        assert job.start_time == job.end_time is not None
        assert job.comment in {"", "run-prolog-no-requeue"}
        assert job.submit_time is not None
    assert (queued.cancelled_by, accounted[queued.job_id].cancelled_by) == (None, 0)


@each_version
def test_a_prolog_that_fails_holds_a_job_that_is_requeued(version: str) -> None:
    """It waits for an administrator for ever, under another spelling of the reason since 22.05."""
    records = squeue.parse(read("squeue-prolog.txt", version)).records
    (queued,) = [job for job in records if called(job) == "prolog-requeue"]
    assert (queued.state, queued.restarts, queued.nodes) == (JobState.PENDING, 1, "")
    assert queued.reason == "launch failed requeued held"


@each_version
def test_scontrol_agrees_with_squeue(version: str) -> None:
    """Every field that both know."""
    jobs = queue(version)
    for name in JOBS:
        job = scontrol.parse_job(read(f"scontrol-job-{name}.txt", version))
        other = jobs[name]
        assert job is not None
        fields = ("job_id", "state", "exit_code", "signal", "reason", "name", "comment")
        times = ("submit_time", "start_time", "end_time", "time_limit_seconds", "restarts")
        for field in (*fields, *times, "partition", "nodes", "script", "working_directory"):
            assert getattr(job, field) == getattr(other, field), (name, field)


@each_version
def test_scontrol_of_an_array_task_has_the_id_that_squeue_prints(version: str) -> None:
    """43_2, not the id that Slurm may give the task later."""
    job = scontrol.parse_job(read("scontrol-job-array-task.txt", version))
    assert job is not None
    # All tasks that wait share a record.
    assert re.fullmatch(r"\d+_(2|0-3)", job.job_id)


@pytest.mark.parametrize(
    ("user", "group"),
    [
        ("EXAMPLE\\\\jane doe(1000)", "EXAMPLE\\\\domain users(1001)"),
        ("jane, doe(1000)", "staff (old)(1001)"),
        ("(1000)", "gruppe ä(1001)"),
    ],
)
def test_scontrol_with_names_of_a_directory_service(user: str, group: str) -> None:
    """They have spaces, commas and backslashes."""
    text = read("scontrol-job-running.txt")
    text = re.sub(r"UserId=\S+ GroupId=\S+", f"UserId={user} GroupId={group}", text)
    job = scontrol.parse_job(text)
    assert job is not None
    assert (job.name, job.state) == ("hpc-agent:run-running", JobState.RUNNING)


def test_scontrol_without_a_job() -> None:
    """An error text is no job."""
    assert scontrol.parse_job(read("scontrol-job-unknown.txt")) is None


def test_scontrol_ping() -> None:
    """One controller that is up suffices."""
    assert scontrol.is_up(read("scontrol-ping.txt"))
    assert scontrol.is_up("Slurmctld(primary) at a is DOWN\nSlurmctld(backup) at b is UP\n")
    assert not scontrol.is_up("Slurmctld(primary) at a is DOWN\n")


def test_sinfo() -> None:
    """Version, partitions with their limits, nodes with all their partitions."""
    assert sinfo.parse_version(read("sinfo-version.txt")) == "slurm 22.05.8"
    debug, batch = sinfo.parse_partitions(read("sinfo-partitions.txt"))
    assert debug == PartitionInfo(
        name="debug",
        available=True,
        is_default=True,
        nodes=2,
        cpus=8,
        max_time_seconds=1800,
        states="1 allocated, 1 idle, 0 other",
        idle_nodes=1,
        idle_cpus=7,
    )
    assert (batch.name, batch.is_default, batch.max_time_seconds) == ("batch", False, 604800)
    first, second = sinfo.parse_nodes(read("sinfo-nodes.txt"))
    assert first == NodeInfo(
        name="c1",
        state="mixed",
        cpus=4,
        memory_mb=4096,
        partitions=("debug", "batch"),
        gres="gpu:2",
    )
    assert second.name == "c2"


@pytest.mark.parametrize(
    ("stdout", "job_id"),
    [
        ("17\n", "17"),
        ("17;east\n", "17"),
        ("banner\n17\n", "17"),
        ("", None),
        ("Submitted batch job 17\n", "17"),
        ("Submitted batch job 17 on cluster east\n", "17"),
        ("17\nThank you!\n", "17"),
        ("2024\n17\n", None),
        ("Your job 4711 was accepted\n", None),
        ("17 18\n", None),
    ],
)
def test_sbatch(stdout: str, job_id: str | None) -> None:
    """--parsable prints the id, and the cluster after it in a federation."""
    assert sbatch.parse(stdout) == job_id


@each_version
def test_the_configuration_is_read(version: str) -> None:
    """Cut short it is none."""
    text = read("scontrol-config.txt", version)
    assert scontrol.parse_max_array_size(f"Welcome!\n{text}") == 1001
    assert scontrol.parse_cli_filters(text) == ""
    for cut in ("", text[: len(text) // 2], "Welcome!\n"):
        with pytest.raises(SchedulerUnreadableError):
            scontrol.parse_max_array_size(cut)
        with pytest.raises(SchedulerUnreadableError):
            scontrol.parse_cli_filters(cut)


@each_version
def test_each_version_describes_itself(version: str) -> None:
    """Its version, its partitions and nodes, and whether it is up."""
    assert sinfo.parse_version(read("sinfo-version.txt", version)).startswith(f"slurm {version}")
    partitions = sinfo.parse_partitions(read("sinfo-partitions.txt", version))
    assert {partition.name for partition in partitions} == {"debug", "batch"}
    nodes = sinfo.parse_nodes(read("sinfo-nodes.txt", version))
    assert [node.name for node in nodes] == ["c1", "c2"]
    assert scontrol.is_up(read("scontrol-ping.txt", version))
