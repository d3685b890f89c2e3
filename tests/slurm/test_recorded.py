"""The parsers on what real clusters printed; one directory per version of Slurm."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hpc_agent.slurm import sacct, sbatch, scontrol, sinfo, squeue
from hpc_agent.slurm.scheduler import JobRecord, NodeInfo, PartitionInfo
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import FIELD, RECORD
from tests.slurm.matrix import VERSIONS

RECORDED = Path(__file__).parent.parent / "recorded"
NAME = 'na me|x=1; echo "q"\nsecond'
COMMENT = "evil|a=b UserId=x(1) c\nline2 é"
SUBMITTED = datetime(2026, 11, 24, 7, 27, 19, tzinfo=UTC)


def read(name: str, version: str = "22.05") -> str:
    """Return a recorded output."""
    return (RECORDED / version / name).read_text()


@pytest.fixture(scope="module")
def queue() -> dict[str, JobRecord]:
    """The recorded squeue, by job id."""
    return {job.job_id: job for job in squeue.parse(read("squeue.txt"))}


@pytest.fixture(scope="module")
def history() -> dict[str, JobRecord]:
    """The recorded sacct, by job id."""
    return {job.job_id: job for job in sacct.parse(read("sacct.txt"))}


@pytest.mark.parametrize(
    ("job_id", "state", "exit_code", "signal", "reason"),
    [
        ("33", JobState.TIMEOUT, 0, 15, "TimeLimit"),
        ("34", JobState.RUNNING, None, None, ""),
        ("35", JobState.FAILED, 3, None, "NonZeroExitCode"),
        ("36", JobState.COMPLETED, 0, None, ""),
        ("37", JobState.FAILED, 0, 9, "JobLaunchFailure"),
        ("38", JobState.CANCELLED, 0, 15, ""),
        ("39", JobState.FAILED, 5, None, "NonZeroExitCode"),
        ("40", JobState.PENDING, None, None, "JobHeldUser"),
        ("41", JobState.PENDING, None, None, "BeginTime"),
        ("42", JobState.PENDING, None, None, "Resources"),
        ("43_2", JobState.PENDING, None, None, "JobHeldUser"),
    ],
)
def test_squeue(
    *,
    queue: dict[str, JobRecord],
    job_id: str,
    state: JobState,
    exit_code: int | None,
    signal: int | None,
    reason: str,
) -> None:
    """State, how it ended, and why it waits."""
    job = queue[job_id]
    assert (job.state, job.exit_code, job.signal, job.reason) == (state, exit_code, signal, reason)
    assert job.source == "squeue"


def test_squeue_has_all_jobs(queue: dict[str, JobRecord]) -> None:
    """Also each task of an array."""
    assert set(queue) == {*map(str, range(33, 43)), "43_1", "43_2", "43_3"}


def test_squeue_times(queue: dict[str, JobRecord]) -> None:
    """A waiting job has an expected start or none, a running one has no end yet."""
    assert queue["34"].submit_time == SUBMITTED
    assert queue["34"].start_time == datetime(2026, 11, 24, 7, 27, 20, tzinfo=UTC)
    assert queue["34"].end_time is None
    assert queue["34"].time_limit_seconds == 2 * 86400 + 3 * 3600 + 5 * 60
    assert queue["33"].end_time == datetime(2026, 11, 24, 7, 28, 49, tzinfo=UTC)
    assert queue["42"].expected_start == datetime(2026, 11, 26, 10, 32, 20, tzinfo=UTC)
    assert queue["42"].start_time is None
    assert queue["40"].expected_start is None


def test_squeue_free_text(queue: dict[str, JobRecord]) -> None:
    """Names and comments with newlines, separators of other formats, and non-ASCII letters."""
    assert (queue["35"].name, queue["35"].comment) == (NAME, COMMENT)
    assert (queue["34"].name, queue["34"].comment) == ("hpc-agent:run-running", "run-running")
    assert queue["41"].comment == ""


def test_squeue_counts_restarts(queue: dict[str, JobRecord]) -> None:
    """Job 39 was requeued once."""
    assert (queue["39"].restarts, queue["34"].restarts) == (1, 0)


def test_squeue_without_jobs() -> None:
    """Nothing is no job."""
    assert squeue.parse("") == []


def test_a_broken_squeue_record_does_not_hide_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged and left out."""
    good = read("squeue.txt")
    jobs = squeue.parse(f"torn{FIELD}PENDING{RECORD}\n{good}")
    assert len(jobs) == len(squeue.parse(good))
    assert "cannot be read" in caplog.text


def test_a_state_from_the_future_is_unknown_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Unknown is not an end, whatever its exit code says."""
    text = read("squeue.txt").replace("COMPLETED", "TELEPORTED")
    (job,) = [job for job in squeue.parse(text) if job.job_id == "36"]
    assert (job.state, job.raw_state, job.exit_code) == (JobState.UNKNOWN, "TELEPORTED", None)
    assert "TELEPORTED" in caplog.text


def test_squeue_is_asked_for_whole_fields_and_all_states() -> None:
    """Width 0 is what keeps squeue from cutting at 20 characters."""
    argv = squeue.arguments()
    assert "--states=all" in argv
    assert "--me" in argv
    columns = argv[-1].removeprefix("--Format=").split(",")
    assert all(":0" in column for column in columns)
    assert columns[-1] == f"Comment:0{RECORD}"


@pytest.mark.parametrize(
    ("job_id", "state", "exit_code", "signal"),
    [
        ("33", JobState.TIMEOUT, 0, 0),
        ("34", JobState.RUNNING, None, None),
        ("35", JobState.FAILED, 3, 0),
        ("36", JobState.COMPLETED, 0, 0),
        ("37", JobState.FAILED, 0, 9),
        ("38", JobState.CANCELLED, 0, 0),
    ],
)
def test_sacct(
    history: dict[str, JobRecord],
    job_id: str,
    state: JobState,
    exit_code: int | None,
    signal: int | None,
) -> None:
    """``CANCELLED by 0`` is CANCELLED."""
    job = history[job_id]
    assert (job.state, job.exit_code, job.signal or 0) == (state, exit_code, signal or 0)


def test_sacct_keeps_the_last_attempt(history: dict[str, JobRecord]) -> None:
    """Job 39 was requeued at first and then failed with 5."""
    assert "REQUEUED" in read("sacct.txt")
    assert (history["39"].state, history["39"].exit_code) == (JobState.FAILED, 5)
    assert history["39"].reason == "", "why it waited before is not why it failed"


def test_sacct_free_text(history: dict[str, JobRecord]) -> None:
    """Slurm stores double quotes in names as back quotes; newlines stay."""
    assert history["35"].name == NAME.replace('"', "`")
    assert history["35"].comment == COMMENT
    assert history["36"].name == "s.sh"


def test_sacct_times_and_limits(history: dict[str, JobRecord]) -> None:
    """Epoch seconds, and minutes of the limit."""
    assert history["34"].submit_time == SUBMITTED
    assert history["34"].time_limit_seconds == 2 * 86400 + 3 * 3600 + 5 * 60
    assert history["34"].end_time is None


def test_sacct_asks_for_duplicates_since_a_time() -> None:
    """The time is UTC, as TZ is."""
    since = datetime.fromisoformat("2026-01-02T03:04:05+01:00")
    argv = sacct.arguments(["1", "2"], since=since)
    assert "--duplicates" in argv
    assert "--starttime=2026-01-02T02:04:05" in argv
    assert argv[-1] == "--jobs=1,2"


@pytest.mark.parametrize(
    ("name", "state", "exit_code", "signal", "reason"),
    [
        ("running", JobState.RUNNING, None, None, ""),
        ("pending", JobState.PENDING, None, None, "Resources"),
        ("held", JobState.PENDING, None, None, "JobHeldUser"),
        ("timeout", JobState.TIMEOUT, 0, 15, "TimeLimit"),
        ("canceled", JobState.CANCELLED, 0, 15, ""),
        ("killed", JobState.FAILED, 0, 9, "JobLaunchFailure"),
        ("requeued", JobState.FAILED, 5, None, "NonZeroExitCode"),
        ("failed-hostile-name", JobState.FAILED, 3, None, "NonZeroExitCode"),
    ],
)
def test_scontrol(
    name: str, state: JobState, exit_code: int | None, signal: int | None, reason: str
) -> None:
    """The same facts as squeue's."""
    job = scontrol.parse_job(read(f"scontrol-job-{name}.txt"))
    assert job is not None
    assert (job.state, job.exit_code, job.signal, job.reason) == (state, exit_code, signal, reason)
    assert job.submit_time is not None


def test_scontrol_agrees_with_squeue(queue: dict[str, JobRecord]) -> None:
    """Every field that both know."""
    for name, job_id in (("running", "34"), ("timeout", "33"), ("failed-hostile-name", "35")):
        job = scontrol.parse_job(read(f"scontrol-job-{name}.txt"))
        other = queue[job_id]
        assert job is not None
        for field in ("job_id", "name", "comment", "partition", "nodes", "submit_time"):
            assert getattr(job, field) == getattr(other, field), field
        for field in ("start_time", "end_time", "time_limit_seconds", "restarts"):
            assert getattr(job, field) == getattr(other, field), field


def test_scontrol_of_an_array_task_has_the_id_that_squeue_prints() -> None:
    """43_2, not the id that Slurm may give the task later."""
    job = scontrol.parse_job(read("scontrol-job-array-task.txt"))
    assert job is not None
    assert job.job_id == "43_2"


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
        ("Submitted batch job 17\n", None),
    ],
)
def test_sbatch(stdout: str, job_id: str | None) -> None:
    """--parsable prints the id, and the cluster after it in a federation."""
    assert sbatch.parse(stdout) == job_id


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_prints_what_the_parsers_read(version: str) -> None:
    """squeue and scontrol agree on an ended, a running and a waiting job of every version."""
    jobs = {job.comment: job for job in squeue.parse(read("squeue.txt", version))}
    for name, comment, state in (
        ("failed-hostile-name", COMMENT, JobState.FAILED),
        ("running", "run-running", JobState.RUNNING),
        ("held", "run-held", JobState.PENDING),
    ):
        shown = scontrol.parse_job(read(f"scontrol-job-{name}.txt", version))
        queued = jobs[comment]
        assert shown is not None
        assert shown.state is queued.state is state
        assert (shown.job_id, shown.name, shown.comment) == (queued.job_id, queued.name, comment)
        assert (shown.exit_code, shown.reason) == (queued.exit_code, queued.reason)
        assert (shown.start_time, shown.end_time) == (queued.start_time, queued.end_time)
        assert shown.submit_time == queued.submit_time is not None
    assert jobs[COMMENT].name == NAME
    assert sinfo.parse_version(read("sinfo-version.txt", version)).startswith(f"slurm {version}")
    assert {p.name for p in sinfo.parse_partitions(read("sinfo-partitions.txt", version))} == {
        "debug",
        "batch",
    }
    assert [node.name for node in sinfo.parse_nodes(read("sinfo-nodes.txt", version))] == [
        "c1",
        "c2",
    ]


@pytest.mark.parametrize("version", ["24.11", "26.05"])
def test_each_version_accounts_for_what_the_parsers_read(version: str) -> None:
    """Newlines and separators survive; slurmdbd itself turns a double quote into a backquote.

    A comment reaches accounting with the end of its job, the name with its start.
    """
    failed, running, held = sacct.parse(read("sacct.txt", version))
    assert (failed.state, failed.exit_code, failed.comment) == (JobState.FAILED, 3, COMMENT)
    assert failed.name == NAME.replace('"', "`")
    assert failed.end_time is not None
    assert (running.state, running.end_time) == (JobState.RUNNING, None)
    assert (running.name, running.comment) == ("hpc-agent:run-running", "")
    assert (held.state, held.name) == (JobState.PENDING, "hpc-agent:run-held")
    assert scontrol.is_up(read("scontrol-ping.txt", version))
