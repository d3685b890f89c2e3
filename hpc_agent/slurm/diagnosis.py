"""What the messages of Slurm's commands mean: one table, read from top to bottom.

The texts are Slurm's own, from ``src/common/slurm_errno.c`` and ``src/sbatch/sbatch.c`` of 22.05 to
25.05; they have not changed for years, unlike exit codes, which are 1 for everything.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from hpc_agent.errors import (
    JobNotFoundError,
    SchedulerError,
    SchedulerLimitError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.slurm.commands import NOT_FOUND, CommandResult


class Meaning(enum.Enum):
    """What a failed command tells us."""

    AMBIGUOUS = "the request was sent, and its answer is lost"
    LIMIT = "a limit is reached: the same request may succeed later"
    REFUSED = "the controller said no"
    UNAVAILABLE = "nobody answered"
    JOB_UNKNOWN = "the controller does not know this job"
    JOB_ENDED = "the job has ended already"
    NO_ACCOUNTING = "this cluster keeps no accounting records"


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern in a message and its meaning; ``why`` is the evidence."""

    pattern: re.Pattern[str]
    meaning: Meaning
    why: str


def _rule(pattern: str, meaning: Meaning, why: str) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE), meaning, why)


# Order matters: what may have made a job comes first, then limits, which name themselves in a line
# before the general "Batch job submission failed".
RULES: tuple[Rule, ...] = (
    _rule(
        r"Munge encode failed|Failed to access .*munge",
        Meaning.UNAVAILABLE,
        "without a credential the command sent nothing",
    ),
    _rule(
        r"Socket timed out on send/recv|Zero Bytes were transmitted or received"
        r"|Message receive failure|Unexpected message rec|Header lengths are longer"
        r"|Insane message length|Communication shutdown failure|Failed to send entire message"
        r"|controller \((send|receive|shutdown) failure\)|Protocol authentication error"
        r"|Connection reset|Broken pipe|endpoint is not connected",
        Meaning.AMBIGUOUS,
        "the connection was made, so slurmctld may have acted on the request",
    ),
    _rule(
        r"(Assoc|QOS)\w*Submit\w*Limit",
        Meaning.LIMIT,
        "AssocMaxSubmitJobLimit, QOSMaxSubmitJobPerUserLimit, AssocGrpSubmitJobsLimit, …:"
        " too many jobs in the queue; it frees itself",
    ),
    _rule(
        r"(Assoc|QOS)(Max|Min|Grp)\w+",
        Meaning.REFUSED,
        "any other limit is on what this one job asks for (DenyOnLimit): waiting does not help",
    ),
    _rule(
        r"job queue full|temporarily unable to accept job|Resource temporarily unavailable"
        r"|Job creation temporarily disabled|Job step creation temporarily disabled",
        Meaning.LIMIT,
        "sbatch.c: MaxJobCount is reached or slurmctld is busy; 15 retries within sbatch failed",
    ),
    _rule(
        r"Job violates accounting/QOS policy",
        Meaning.LIMIT,
        "without a line that names the limit it is most often the number of submitted jobs",
    ),
    _rule(
        r"Required partition not available|Reservation.*not.*(active|started)",
        Meaning.LIMIT,
        "an inactive partition (maintenance) comes back",
    ),
    _rule(
        r"rate limit|back.?off|too many requests",
        Meaning.LIMIT,
        "rl_enable (23.02): slurmctld asks clients to slow down",
    ),
    _rule(
        r"Invalid job id specified|Job \S+ not found|No job.* found",
        Meaning.JOB_UNKNOWN,
        "never existed, or purged MinJobAge after its end",
    ),
    _rule(
        r"already completing or completed|Job is (already )?finished",
        Meaning.JOB_ENDED,
        "ESLURM_ALREADY_DONE",
    ),
    _rule(
        r"accounting storage is disabled|SlurmDBD must be|accounting_storage/none",
        Meaning.NO_ACCOUNTING,
        "sacct without AccountingStorageType",
    ),
    _rule(
        r"Unable to contact slurm controller|Unable to connect|Connection refused"
        r"|Connection timed out|No route to host|Network is unreachable|standby mode"
        r"|persistent connection|talking to the database|munge"
        r"|configuration source|DNS SRV|Incompatible versions|Unable to resolve"
        r"|not accepting requests|command not found",
        Meaning.UNAVAILABLE,
        "nothing reached slurmctld or slurmdbd, or they could not act on it",
    ),
)


def meaning_of(message: str) -> Meaning | None:
    """Return the meaning of the first rule that matches; None for a message nobody knows."""
    for rule in RULES:
        if rule.pattern.search(message):
            return rule.meaning
    return None


def submit_error(result: CommandResult) -> SchedulerError:
    """Say why sbatch made no job, or that it may have made one.

    Only sbatch's own refusal counts as "no job". A killed sbatch, or one that ended without a
    word, may have made a job. A connection error after sbatch has begun to retry is ambiguous as
    well: the first try may have got through.
    """
    words = result.describe()
    if result.returncode == NOT_FOUND:
        return SchedulerUnavailableError(f"{words}. {_NOT_FOUND_ADVICE}")
    ended_by_itself = result.returncode is not None and result.returncode > 0
    meaning = meaning_of(result.stderr)
    if not ended_by_itself or not result.stderr.strip() or meaning is Meaning.AMBIGUOUS:
        return SubmitAmbiguousError(f"{words}; sbatch told no job id, but a job may exist")
    if meaning is Meaning.LIMIT:
        return SchedulerLimitError(words)
    if meaning is Meaning.UNAVAILABLE:
        return SchedulerUnavailableError(words)
    return SubmitRefusedError(words)


def query_error(result: CommandResult) -> SchedulerError:
    """Say why a query or an order about a job failed; what nobody knows means "nothing learned"."""
    words = result.describe()
    if result.returncode == NOT_FOUND:
        return SchedulerUnavailableError(f"{words}. {_NOT_FOUND_ADVICE}")
    # scontrol says "Job 17_3 not found" of an array's task on its standard output (22.05).
    message = result.stderr.strip() or result.stdout
    if result.returncode is not None and meaning_of(message) is Meaning.JOB_UNKNOWN:
        return JobNotFoundError(words)
    return SchedulerUnavailableError(words)


_NOT_FOUND_ADVICE = (
    "Slurm's client commands must be on the agent's PATH:"
    " load the site's module before starting it, or set PATH in its service unit"
)
