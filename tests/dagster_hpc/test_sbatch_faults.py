"""Jobs by Slurm's own commands where those fail: sbatch, squeue and scancel are stand-ins."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from dagster_hpc.jobs import JobError, JobName, JobRequest, Phase
from dagster_hpc.launchers.job_script import is_withheld, sbatch_argv, write
from dagster_hpc.launchers.sbatch import SbatchLauncher
from dagster_hpc.launchers.slurm_commands import leaves_open
from dagster_hpc.options import SlurmOptions, options_of_tags

RUN = "6b0e7c1a-5f0d-4a57-9f5e-0d3c5a7f1b11"
BUSY = (
    "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2"
)
# The name is the fourth word: --parsable --export --job-name.
MAKES_A_JOB = 'echo "4711|${3#--job-name=}|PENDING||Priority" >>"$(dirname "$0")/queue"'
SHOWS_THE_QUEUE = 'cat "$(dirname "$0")/queue"'
HANGS = "exec sleep 60"
SOLVE = JobName("solve")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where commands of Slurm are put; the queue is empty."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "queue").touch()
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    command(directory, "squeue", SHOWS_THE_QUEUE)
    command(directory, "scancel", 'echo "$@" >>"$(dirname "$0")/cancelled"')
    return directory


@pytest.fixture
def launcher(slurm: Path, tmp_path: Path) -> SbatchLauncher:
    return SbatchLauncher(RUN, tmp_path / "shared", call_seconds=1, patience=0)


def command(directory: Path, name: str, *lines: str) -> None:
    path = directory / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def request(job: JobName = SOLVE) -> JobRequest:
    return JobRequest(job, [(job.name, {})], command=["true"])


@pytest.mark.parametrize("end", [f"{BUSY}; exit 1", HANGS], ids=["gives up", "hangs"])
def test_job_that_a_busy_sbatch_has_made_is_found(
    launcher: SbatchLauncher, slurm: Path, end: str
) -> None:
    command(slurm, "sbatch", MAKES_A_JOB, end)
    (status,) = launcher.submit([request()])
    assert (status.phase, status.job_id) == (Phase.QUEUED, "4711")


@pytest.mark.parametrize("looks", [SHOWS_THE_QUEUE, HANGS], ids=["is empty", "hangs"])
def test_job_that_is_not_found_does_nothing_when_it_comes(
    launcher: SbatchLauncher, slurm: Path, looks: str
) -> None:
    """It is refused, and so is what asks for more: no program runs that nobody knows of."""
    command(slurm, "sbatch", f"{BUSY}; exit 1")
    command(slurm, "squeue", looks)
    (status,) = launcher.submit([request()])
    assert status.state == "REFUSED"
    assert "Socket timed out" in status.message
    directory = Path(launcher.directory(SOLVE))
    assert is_withheld(directory)
    assert begin(directory, "4711") == 0
    assert not (directory / "exit").exists()


def test_job_that_was_not_found_is_submitted_when_it_is_asked_for_again(
    launcher: SbatchLauncher, slurm: Path, tmp_path: Path
) -> None:
    """By a later process of the run; the one that came after all is not followed."""
    command(slurm, "sbatch", f"{BUSY}; exit 1")
    launcher.submit([request()])
    (slurm / "queue").write_text("4711|late|COMPLETED||None\n")
    command(slurm, "sbatch", "echo 4712")
    later = SbatchLauncher(RUN, tmp_path / "shared", patience=0)
    (status,) = later.submit([request()])
    assert status.job_id == "4712"
    directory = Path(later.directory(SOLVE))
    assert begin(directory, "4712") == 0
    assert (directory / "exit").read_text() == "0\n"


def test_refusal_is_not_looked_for(launcher: SbatchLauncher, slurm: Path) -> None:
    """It costs no look at the queue."""
    words = "sbatch: error: Batch job submission failed: Invalid partition name specified"
    command(slurm, "sbatch", f"echo '{words}' >&2; exit 1")
    command(slurm, "squeue", 'touch "$(dirname "$0")/looked"')
    (status,) = launcher.submit([request()])
    assert (status.state, status.message) == ("REFUSED", f"sbatch: {words}")
    assert not (slurm / "looked").exists()


def test_commands_that_hang_are_errors_of_jobs(launcher: SbatchLauncher, slurm: Path) -> None:
    """Which callers know; the end of a run is not disturbed by them."""
    command(slurm, "sbatch", "echo 4711")
    launcher.submit([request()])
    command(slurm, "scancel", HANGS)
    command(slurm, "squeue", HANGS)
    with pytest.raises(JobError, match="scancel has not answered in 1 s"):
        launcher.cancel([SOLVE])
    (known,) = launcher.changes(0)
    assert known.job_id == "4711"


@pytest.mark.parametrize(
    ("words", "is_open"),
    [
        ("sbatch: error: Batch job submission failed: Requested node configuration is", False),
        ("sbatch: error: Invalid --mem specification", False),
        ("sbatch: unrecognized option '--nods=1'", False),
        (
            "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
            True,
        ),
        ("sbatch: error: Batch job submission failed: Connection reset by peer", True),
        ("sbatch: error: Batch job submission failed: Connection refused", True),
        ("words of a wrapper", True),
        ("", True),
    ],
)
def test_what_a_failed_sbatch_leaves_open(words: str, *, is_open: bool) -> None:
    """Only known words are a no."""
    assert leaves_open(JobError(f"sbatch: {words}")) is is_open


@pytest.mark.parametrize(
    ("requeue", "expected"), [(None, "--no-requeue"), (False, "--no-requeue"), (True, "--requeue")]
)
def test_job_is_requeued_only_if_that_is_asked_for(
    requeue: bool | None, expected: str, tmp_path: Path
) -> None:
    """Without either option Slurm goes by its JobRequeue, which is 1."""
    options = options_of_tags(SlurmOptions(requeue=requeue).tags())
    argv = sbatch_argv(tmp_path, "name", options)
    assert [word for word in argv if word.endswith("requeue")] == [expected]


def test_job_has_variables_of_slurm_that_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the process that submits it are of another job, or of none."""
    monkeypatch.setenv("SLURM_SUBMIT_DIR", "/agent")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    write(
        tmp_path,
        JobRequest(SOLVE, [], command=["true"], environment={"SLURM_SUBMIT_DIR": "/my work"}),
    )
    lines = (tmp_path / "environment").read_text().splitlines()
    assert [each for each in lines if "SLURM_" in each] == ["export SLURM_SUBMIT_DIR='/my work'"]


def begin(directory: Path, job_id: str) -> int:
    """Start a job's script as Slurm would."""
    return subprocess.run(
        ["bash", directory / "job.sh"],
        check=False,
        timeout=30,
        env={"SLURM_JOB_ID": job_id, "PATH": "/usr/bin:/bin"},
    ).returncode
