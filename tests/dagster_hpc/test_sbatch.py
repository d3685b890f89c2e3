"""Jobs by Slurm's own commands, on a real Slurm."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from dagster_hpc.jobs import JobName, JobRequest, JobStatus, Phase
from dagster_hpc.launchers import queue
from dagster_hpc.launchers.sbatch import SbatchLauncher

from tests.cluster import SlurmCluster
from tests.dagster_hpc.runs import RUN, bench

pytestmark = pytest.mark.slurm


@pytest.fixture
def base(tmp_path: Path, slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared directory with an awkward name; Slurm's commands are on the PATH."""
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "it's 100% shared"


@pytest.fixture
def launcher(base: Path) -> Iterator[SbatchLauncher]:
    started = SbatchLauncher(RUN, base)
    yield started
    started.cancel([JobName(name) for name in ("good", "bad", "long", "refused")])
    started.close()


def command(name: str, *argv: str, **options: str) -> JobRequest:
    tags = {f"dagster-hpc/{option}": value for option, value in options.items()}
    return JobRequest(JobName(name), [(name, tags)], command=argv, environment={"WHO": "you\n'x'"})


def wait_for(launcher: SbatchLauncher, name: str, is_so: Callable[[JobStatus], bool]) -> JobStatus:
    """Follow the changes until a job stands as it should."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        for status in launcher.changes(1):
            if status.job == JobName(name) and is_so(status):
                return status
    raise AssertionError(launcher.status(JobName(name)))


def has_ended(status: JobStatus) -> bool:
    return status.phase is Phase.ENDED


def test_jobs_go_to_slurm_and_come_back(launcher: SbatchLauncher, base: Path) -> None:
    """With their environment, exit code and last words; a wrong one is refused in Slurm's."""
    asked = [
        command("good", "sh", "-c", 'echo "$WHO"; echo "$SLURM_CPUS_PER_TASK"', time="5"),
        command("bad", "sh", "-c", "echo why >&2; exit 3"),
        command("refused", "true", partition="nowhere"),
    ]
    *_, refused = launcher.submit(asked)
    assert refused.state == "REFUSED"
    assert "nvalid partition" in refused.message
    good = wait_for(launcher, "good", has_ended)
    assert good.has_succeeded
    output = Path(launcher.directory(good.job), "stdout").read_text()
    assert output.startswith("you\n'x'\n")
    bad = launcher.status(JobName("bad"))
    if bad is None or not has_ended(bad):
        bad = wait_for(launcher, "bad", has_ended)
    assert (bad.state, bad.exit_code, bad.message) == ("FAILED", 3, "why")
    environment = Path(launcher.directory(good.job), "environment")
    assert environment.stat().st_mode & 0o777 == 0o600


def test_a_job_is_found_again_and_ended(launcher: SbatchLauncher, base: Path) -> None:
    """By another process of the run, which submits it no second time."""
    request = command("long", "sleep", "600", time="30")
    (first,) = launcher.submit([request])
    later = SbatchLauncher(RUN, base)
    assert [each.job_id for each in later.changes(0)] == [first.job_id]
    (again,) = later.submit([request])
    assert again.job_id == first.job_id
    wait_for(later, "long", lambda status: status.phase is Phase.RUNNING and bool(status.nodes))
    later.cancel([request.job])
    assert wait_for(later, "long", has_ended).state == "CANCELLED"


def test_a_process_ends_no_job_of_another_one(launcher: SbatchLauncher, base: Path) -> None:
    """Although it follows the changes of all jobs of the run."""
    (asked,) = launcher.submit([command("long", "sleep", "600", time="30")])
    wait_for(launcher, "long", lambda status: status.state == "RUNNING")
    beside = SbatchLauncher(RUN, base)
    beside.submit([command("good", "true")])
    wait_for(beside, "good", has_ended)
    beside.close()
    (state,) = [each.state for each in queue.look(output) if each.job_id == asked.job_id]
    assert state == "RUNNING"


def output(argv: Sequence[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_a_run_has_its_steps_in_slurm(base: Path, tmp_path: Path) -> None:
    """Those that ask for something; the others are beside the run worker."""
    variables = {"DAGSTER_HPC_LAUNCHER": "sbatch", "DAGSTER_HPC_DIRECTORY": str(base)}
    with bench(tmp_path, **variables) as made:
        run = made.run("places")
    assert run.status == "SUCCESS", run.messages()
    assert "Submitted as job" in run.messages("alone") or "It runs as job" in run.messages("alone")
    assert "job" not in run.messages("beside")


def test_a_queue_is_read_line_by_line() -> None:
    """States that end a job are known; one of tomorrow does not end it."""
    text = "17|dagster-hpc:a|PENDING||Priority|odd\n18|b|TIMEOUT|c1|None\n19|c|NEW_STATE|c2|x\n?\n"
    waiting, ended, unknown = queue.parse(text)
    status = JobStatus(JobName("a"), Phase.QUEUED, job_id="17")
    assert waiting.applied_to(status).reason == "Priority|odd"
    assert ended.has_ended
    assert not unknown.has_ended
