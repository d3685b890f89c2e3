"""Faults that a real Slurm does not produce on demand: executables in place of its commands."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hpc_agent.errors import (
    SchedulerLimitError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.slurm.cli import SlurmCli
from hpc_agent.slurm.commands import ProcessRunner
from hpc_agent.slurm.scheduler import Look
from tests.slurm.printing import sacct_text, squeue_text

NOW = datetime.now(UTC)
Fake = Callable[[str, str], None]
EMPTY_SQUEUE = f"cat <<'END'\n{squeue_text()}END"
EMPTY_SACCT = f"cat <<'END'\n{sacct_text()}END"


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Return a function that puts a shell script on the PATH as a command."""

    def write(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return write


@pytest.fixture
def slurm(tmp_path: Path) -> SlurmCli:
    """Slurm's commands, found on a PATH where only the fakes of this test are."""
    runner = ProcessRunner({"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_CONF": "/nowhere"})
    return SlurmCli(runner, query_timeout_seconds=10, submit_timeout_seconds=10)


async def test_a_socket_timeout_of_sbatch_is_ambiguous(slurm: SlurmCli, fake: Fake) -> None:
    """The controller may have made the job before the answer got lost."""
    fake(
        "sbatch",
        "echo 'sbatch: error: Batch job submission failed:"
        " Socket timed out on send/recv operation' >&2; exit 1",
    )
    with pytest.raises(SubmitAmbiguousError, match="Socket timed out on send/recv operation"):
        await slurm.submit(Path("job.sh"), name="n", comment="c")


async def test_an_sbatch_that_hangs_is_killed_and_ambiguous(tmp_path: Path, fake: Fake) -> None:
    """Its last words are in the message."""
    fake(
        "sbatch",
        "echo 'sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying' >&2;"
        " sleep 300",
    )
    runner = ProcessRunner({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    started = time.monotonic()
    with pytest.raises(SubmitAmbiguousError, match=r"unable to accept job.*killed after 1 s"):
        await SlurmCli(runner, submit_timeout_seconds=1).submit(
            Path("job.sh"), name="n", comment="c"
        )
    assert time.monotonic() - started < 20


async def test_an_sbatch_killed_from_outside_is_ambiguous(slurm: SlurmCli, fake: Fake) -> None:
    """For example by the kernel, or at the end of a session."""
    fake("sbatch", "kill -KILL $$")
    with pytest.raises(SubmitAmbiguousError, match="SIGKILL"):
        await slurm.submit(Path("job.sh"), name="n", comment="c")


@pytest.mark.parametrize(
    "limit", ["AssocMaxSubmitJobLimit", "QOSMaxSubmitJobPerUserLimit", "AssocGrpSubmitJobsLimit"]
)
async def test_a_submit_limit_is_back_pressure(slurm: SlurmCli, fake: Fake, limit: str) -> None:
    """It may be tried again, and says which limit it is."""
    fake(
        "sbatch",
        f"echo 'sbatch: error: {limit}' >&2\n"
        "echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
        " (job submit limit, the size and/or time limits)' >&2; exit 1",
    )
    with pytest.raises(SchedulerLimitError, match=limit) as caught:
        await slurm.submit(Path("job.sh"), name="n", comment="c")
    assert caught.value.retryable


async def test_a_submit_plugin_that_talks_does_not_hide_the_id(slurm: SlurmCli, fake: Fake) -> None:
    """Sites print banners on both streams; in a federation --parsable gives ``id;cluster``."""
    fake("sbatch", "echo 'sbatch: Welcome!' >&2; echo 'Your project has 10 h left'; echo '17;east'")
    assert await slurm.submit(Path("job.sh"), name="n", comment="c") == "17"


async def test_sbatch_gets_exactly_these_arguments(
    slurm: SlurmCli, fake: Fake, tmp_path: Path
) -> None:
    """One option, one argument; nothing is split or interpreted."""
    fake("sbatch", f"printf '%s\\n' \"$@\" > {tmp_path}/arguments; echo 1")
    await slurm.submit(Path("/a b/job.sh"), name="$(x); y", comment="-c 'z'")
    assert (tmp_path / "arguments").read_text().splitlines() == [
        "--parsable",
        "--export=NIL",
        "--comment=-c 'z'",
        "--job-name=$(x); y",
        "/a b/job.sh",
    ]


async def test_a_missing_sbatch_is_unavailable_with_advice(slurm: SlurmCli) -> None:
    """Nothing was submitted: no search for a job is needed."""
    with pytest.raises(SchedulerUnavailableError, match="load the site's module"):
        await SlurmCli(ProcessRunner({"PATH": "/nowhere"})).submit(
            Path("job.sh"), name="n", comment="c"
        )


async def test_a_controller_that_is_away_makes_every_query_unavailable(
    slurm: SlurmCli, fake: Fake
) -> None:
    """Never an empty list, never a missing job."""
    text = "Unable to contact slurm controller (connect failure)"
    for command in ("squeue", "scontrol", "scancel", "sinfo"):
        fake(command, f"echo 'slurm_load_jobs error: {text}' >&2; exit 1")
    fake("sacct", "echo 'sacct: error: Problem talking to the database: Connection refused' >&2")
    calls = [
        slurm.queue(),
        slurm.show("1"),
        slurm.find("c", since=NOW),
        slurm.cancel("1"),
        slurm.signal("1", "TERM"),
        slurm.partitions(),
        slurm.nodes(),
        slurm.version(),
        slurm.history(["1"], since=NOW),
    ]
    for call in calls:
        with pytest.raises(SchedulerUnavailableError):
            await call
    assert not await slurm.healthy()


async def test_a_find_that_cannot_ask_accounting_has_not_found_anything_out(
    slurm: SlurmCli, fake: Fake
) -> None:
    """An empty queue and a dead slurmdbd do not prove that there is no job."""
    fake("squeue", EMPTY_SQUEUE)
    fake("sacct", "echo 'sacct: error: Problem talking to the database' >&2; exit 1")
    with pytest.raises(SchedulerUnavailableError, match="talking to the database"):
        await slurm.find("c", since=NOW)


async def test_missing_accounting_is_remembered_for_a_while(tmp_path: Path, fake: Fake) -> None:
    """sacct is not asked again until minutes have passed."""
    fake(
        "sacct",
        f"echo x >> {tmp_path}/calls; echo 'Slurm accounting storage is disabled' >&2; exit 1",
    )
    times = iter([0.0, 0.0, 10.0, 299.0, 301.0, 301.0])
    slurm = SlurmCli(
        ProcessRunner({"PATH": f"{tmp_path}:/usr/bin:/bin"}),
        accounting_retry_seconds=300,
        clock=lambda: next(times),
    )
    for _ in range(4):
        assert await slurm.history(["1"], since=NOW) == Look()
    assert (tmp_path / "calls").read_text() == "x\nx\n"


async def test_many_ids_are_one_sacct(slurm: SlurmCli, fake: Fake, tmp_path: Path) -> None:
    """5,000 of them still fit on one command line."""
    fake("sacct", f"echo x >> {tmp_path}/calls\n{EMPTY_SACCT}")
    ids = [str(number) for number in range(1_000_000, 1_005_000)]
    assert await slurm.history(ids, since=NOW) == Look()
    assert await slurm.history([], since=NOW) == Look()
    assert (tmp_path / "calls").read_text() == "x\n"


async def test_an_order_that_fails_says_why(slurm: SlurmCli, fake: Fake) -> None:
    """scancel without permission is an error, in Slurm's words."""
    fake(
        "scancel",
        "echo 'scancel: error: Kill job error on job id 1: Access/permission denied' >&2; exit 1",
    )
    with pytest.raises(SchedulerUnavailableError, match="Access/permission denied"):
        await slurm.cancel("1")


@pytest.mark.parametrize(
    "words", ["Job/step already completing or completed", "Invalid job id specified"]
)
async def test_an_ended_or_purged_job_needs_no_cancel(
    slurm: SlurmCli, fake: Fake, words: str
) -> None:
    """That it does not run is what was wanted."""
    fake("scancel", f"echo 'scancel: error: Kill job error on job id 1: {words}' >&2; exit 1")
    await slurm.cancel("1")


async def test_a_refusal_keeps_the_words_of_a_submit_plugin(slurm: SlurmCli, fake: Fake) -> None:
    """The user reads what the site's plugin says."""
    fake(
        "sbatch",
        "echo 'sbatch: error: Please give --account=PROJECT, see https://wiki' >&2\n"
        "echo 'sbatch: error: Batch job submission failed: Unspecified error' >&2; exit 1",
    )
    with pytest.raises(SubmitRefusedError, match=r"give --account=PROJECT.*Unspecified error"):
        await slurm.submit(Path("job.sh"), name="n", comment="c")
