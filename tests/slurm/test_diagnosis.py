"""What Slurm's messages mean, text by text."""

from __future__ import annotations

import pytest

from hpc_agent.errors import (
    JobNotFoundError,
    SchedulerError,
    SchedulerLimitError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.slurm.commands import CommandResult
from hpc_agent.slurm.diagnosis import Meaning, meaning_of, query_error, submit_error

FAILED = "sbatch: error: Batch job submission failed: "
POLICY = (
    f"{FAILED}Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)

SUBMISSIONS: list[tuple[str, type[SchedulerError]]] = [
    (f"{FAILED}Socket timed out on send/recv operation", SubmitAmbiguousError),
    (f"{FAILED}Zero Bytes were transmitted or received", SubmitAmbiguousError),
    (f"{FAILED}Message receive failure", SubmitAmbiguousError),
    (f"{FAILED}Unexpected message received", SubmitAmbiguousError),
    (f"{FAILED}Header lengths are longer than data received", SubmitAmbiguousError),
    (f"{FAILED}Unable to contact slurm controller (receive failure)", SubmitAmbiguousError),
    (
        "sbatch: error: Socket timed out on send/recv operation\n"
        f"{FAILED}Unable to contact slurm controller (connect failure)",
        SubmitAmbiguousError,
    ),
    (f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}", SchedulerLimitError),
    (f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}", SchedulerLimitError),
    (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", SchedulerLimitError),
    (f"sbatch: error: QOSGrpSubmitJobsLimit\n{POLICY}", SchedulerLimitError),
    (POLICY, SchedulerLimitError),
    (f"sbatch: error: AssocMaxWallDurationPerJobLimit\n{POLICY}", SubmitRefusedError),
    (f"sbatch: error: QOSMaxCpuPerJobLimit\n{POLICY}", SubmitRefusedError),
    (
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
        f"{FAILED}Resource temporarily unavailable",
        SchedulerLimitError,
    ),
    (
        "sbatch: error: Slurm job queue full, sleeping and retrying\n"
        f"{FAILED}Resource temporarily unavailable",
        SchedulerLimitError,
    ),
    (f"{FAILED}Required partition not available (inactive or drain)", SchedulerLimitError),
    (f"{FAILED}Unable to contact slurm controller (connect failure)", SchedulerUnavailableError),
    (f"{FAILED}Slurm backup controller in standby mode", SchedulerUnavailableError),
    (
        'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"\n'
        f"{FAILED}Protocol authentication error",
        SchedulerUnavailableError,
    ),
    (
        "sbatch: error: fetch_config: DNS SRV lookup failed\n"
        "sbatch: fatal: Could not establish a configuration source",
        SchedulerUnavailableError,
    ),
    (
        "sbatch: error: invalid partition specified: nope\n"
        f"{FAILED}Invalid partition name specified",
        SubmitRefusedError,
    ),
    (
        f"{FAILED}Invalid account or account/partition combination specified",
        SubmitRefusedError,
    ),
    (f"{FAILED}Invalid qos specification", SubmitRefusedError),
    (f"{FAILED}Requested node configuration is not available", SubmitRefusedError),
    (
        f"{FAILED}Requested time limit is invalid (missing or exceeds some limit)",
        SubmitRefusedError,
    ),
    (f"{FAILED}Access/permission denied", SubmitRefusedError),
    ("sbatch: error: Unable to open file /nope", SubmitRefusedError),
    ("sbatch: error: cli_filter plugin terminated with error", SubmitRefusedError),
    (
        "sbatch: error: Give your project by --account, see the site's wiki\n"
        "sbatch: error: cli_filter plugin terminated with error",
        SubmitRefusedError,
    ),
    ("sbatch: error: Give your project by --account, see the site's wiki", SubmitAmbiguousError),
    (f"sbatch: error: QOSMaxJobsPerUserLimit\n{POLICY}", SchedulerLimitError),
    (f"sbatch: error: AssocGrpJobsLimit\n{POLICY}", SchedulerLimitError),
    (f"sbatch: error: MaxSubmitJobsPerAccount\n{POLICY}", SchedulerLimitError),
    (f"sbatch: error: MaxJobsPerAccount\n{POLICY}", SchedulerLimitError),
    (f"sbatch: error: MaxCpuPerAccount\n{POLICY}", SubmitRefusedError),
    (f"sbatch: error: QOSGrpCpuLimit\n{POLICY}", SubmitRefusedError),
    (f"sbatch: error: AssocMaxCpuMinutesPerJobLimit\n{POLICY}", SubmitRefusedError),
    (f"{FAILED}Unable to create job record, try again", SchedulerLimitError),
    (f"{FAILED}System submissions disabled", SchedulerLimitError),
    (f"{FAILED}Requested account has breached requested QOS usage threshold", SchedulerLimitError),
    (f"{FAILED}Rate limit exceeded, please retry later", SchedulerLimitError),
    (f"{FAILED}I/O error writing script/environment to file", SchedulerUnavailableError),
    (f"{FAILED}Invalid authentication credential", SchedulerUnavailableError),
    (f"{FAILED}Connection timed out establishing", SchedulerUnavailableError),
    (f"{FAILED}Connection timed out reading", SubmitAmbiguousError),
    (f"{FAILED}Input/output error", SubmitAmbiguousError),
    (f"{FAILED}Success", SubmitAmbiguousError),
    (f"{FAILED}Unspecified error", SubmitRefusedError),
    (f"{FAILED}Memory required by task is not available", SubmitRefusedError),
    (f"{FAILED}Invalid feature specification", SubmitRefusedError),
    ("sbatch: error: This does not look like a batch script.  The first", SubmitRefusedError),
    ("sbatch: unrecognized option '--nope'\nTry \"sbatch --help\" for more", SubmitRefusedError),
    (
        "sbatch: fatal: --mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.",
        SubmitRefusedError,
    ),
    ("Your job was accepted", SubmitAmbiguousError),
    (f"NOTE: rate limit of the wiki\n{FAILED}Invalid qos specification", SubmitRefusedError),
]


@pytest.mark.parametrize(("stderr", "expected"), SUBMISSIONS)
def test_a_failed_submission(stderr: str, expected: type[SchedulerError]) -> None:
    """Each text leads to its error, which keeps Slurm's own words."""
    error = submit_error(_result("sbatch", stderr=stderr))
    assert type(error) is expected
    assert stderr.splitlines()[-1].removeprefix("sbatch: ") in str(error)


@pytest.mark.parametrize(
    ("returncode", "stdout", "stderr", "unknown"),
    [
        (0, "Your job 4711 was accepted\n", "", True),
        (0, "", "sbatch: job accepted", True),
        (1, "", "Your job was accepted", True),
        (1, "Your job was accepted", "", True),
        (1, "4711\n", "wrapper: cannot write the journal", False),
        (1, "4711\n", f"{FAILED}Invalid qos specification", False),
        (1, "", f"{FAILED}Socket timed out on send/recv operation", False),
        (None, "", "Your job was accepted", False),
        (0, "", "", False),
    ],
)
def test_words_that_nobody_knows_are_told_apart(
    returncode: int | None, stdout: str, stderr: str, *, unknown: bool
) -> None:
    """After a search that finds no job they may be a refusal; an answer that was lost is none."""
    error = submit_error(_result("sbatch", returncode=returncode, stdout=stdout, stderr=stderr))
    assert isinstance(error, SubmitAmbiguousError)
    assert error.unknown_words is unknown


@pytest.mark.parametrize(
    ("returncode", "stdout", "stderr"),
    [
        (None, "", "sbatch: error: Slurm job queue full, sleeping and retrying"),
        (None, "", ""),
        (-9, "", f"{FAILED}Invalid partition name specified"),
        (0, "", ""),
        (0, "welcome to the cluster", ""),
        (1, "", ""),
    ],
)
def test_an_sbatch_that_did_not_say_no_is_ambiguous(
    returncode: int | None, stdout: str, stderr: str
) -> None:
    """Killed, silent or unreadable: a job may exist."""
    error = submit_error(_result("sbatch", returncode=returncode, stdout=stdout, stderr=stderr))
    assert type(error) is SubmitAmbiguousError
    assert "a job may exist" in str(error)


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("slurm_load_jobs error: Invalid job id specified", JobNotFoundError),
        (
            "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
            SchedulerUnavailableError,
        ),
        (
            "slurm_load_jobs error: Socket timed out on send/recv operation",
            SchedulerUnavailableError,
        ),
        (
            "sacct: error: Problem talking to the database: Connection refused",
            SchedulerUnavailableError,
        ),
        ("something nobody has seen before", SchedulerUnavailableError),
        ("", SchedulerUnavailableError),
    ],
)
def test_a_failed_query(stderr: str, expected: type[SchedulerError]) -> None:
    """Whatever the text: only an unknown job id says something about a job."""
    assert type(query_error(_result("squeue", stderr=stderr))) is expected


def test_a_missing_command_is_advice() -> None:
    """The message says which command, where it was looked for, and what to do."""
    result = _result("sbatch", returncode=127, stderr="command not found on PATH=/usr/bin")
    error = submit_error(result)
    assert type(error) is SchedulerUnavailableError
    assert "PATH=/usr/bin" in str(error)
    assert "load the site's module" in str(error)


def test_other_meanings() -> None:
    """Texts that are no failure of the caller."""
    assert meaning_of("Slurm accounting storage is disabled") is Meaning.NO_ACCOUNTING
    assert meaning_of("Job/step already completing or completed") is Meaning.JOB_ENDED
    assert meaning_of("hello") is None


def _result(
    command: str, *, returncode: int | None = 1, stdout: str = "", stderr: str = ""
) -> CommandResult:
    return CommandResult(
        argv=(command,), returncode=returncode, stdout=stdout, stderr=stderr, timeout_seconds=5
    )
