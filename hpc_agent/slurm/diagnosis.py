"""What the messages of Slurm's commands mean: one table, read from top to bottom.

The texts are Slurm's own, from ``src/common/slurm_errno.c``, ``src/common/slurm_opt.c`` and
``src/sbatch/sbatch.c`` of 22.05 to 26.05; they have not changed for years, unlike exit codes, which
are 1 for everything. What is in no row means nothing: it is neither a refusal nor a limit.
"""

from __future__ import annotations

import enum
import errno
import os
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
from hpc_agent.slurm import sbatch
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
        r"|Connection reset|Broken pipe|endpoint is not connected"
        r"|Connection timed out (reading|writing)|Connection forced closed|(Read|Write) would block"
        r"|Received zero length message|Received message length < 0",
        Meaning.AMBIGUOUS,
        "the connection was made, so slurmctld may have acted on the request",
    ),
    _rule(
        r"\b(Assoc|QOS|Max)\w*(Submit|Jobs)\w*|\b(Association|QOS)JobLimit",
        Meaning.LIMIT,
        "AssocMaxSubmitJobLimit, QOSMaxSubmitJobPerUserLimit, AssocGrpJobsLimit,"
        " MaxSubmitJobsPerAccount, …: too many jobs, be they ours or not; it frees itself",
    ),
    _rule(
        r"\b(Assoc|QOS)(Max|Min|Grp)\w+|\bMax\w+PerAccount|\bMaxMemPerLimit",
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
        r"Unable to create job record, try again|Requested nodes are busy"
        r"|System submissions disabled|breached requested QOS usage threshold"
        r"|Burst Buffer resource limit exceeded|Licenses currently unavailable"
        r"|Required node not available|Partition in DOWN state|maintenance reservation"
        r"|Requested reservation (is in use|not usable now)",
        Meaning.LIMIT,
        "what is asked for is taken or out of service now, and comes back",
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
        r"|not accepting requests|command not found"
        r"|I/O error writing script/environment to file|Communication connection failure"
        r"|authentication credential|authentication (agent|public key)"
        r"|different controller|database connection|Unable to establish control",
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


# What sbatch says before it asks the controller at all (slurm_opt.c, opt.c, sbatch.c).
_BEFORE_ASKING = re.compile(
    r"^sbatch: (?:error|fatal): (?:"
    r"Unable to open file|Batch script|This does not look like a batch script|The Slurm controller"
    r" does not allow scripts|Script arguments not permitted|Change from #SLURM|Invalid|Malformed"
    r"|Numeric argument|Unable to (?:add|process) option|Unrecogni[sz]ed|Incompatible|Maximum node"
    r" count|Priority must|Too few processes|Cannot specify|don't specify|Failure getting NodeNames"
    r"|cli_filter plugin terminated|Plugin stack|Failed to initialize plugin stack|spank:|lua:"
    r"|getcwd failed|memory allocation failure|Internal parsing error"
    r"|.*\b(?:mutually exclusive|is not valid|only permitted by|unrecogni[sz]ed .*argument)"
    r")|^sbatch: (?:unrecognized|invalid) option|^sbatch: option '.*' (?:requires|doesn't|is ambig)"
    r'|^Try "sbatch --help"',
    re.IGNORECASE | re.MULTILINE,
)
_FAILED = re.compile(r"^sbatch: error: Batch job submission failed: (?P<why>.+)$", re.MULTILINE)
# errno of the C library: then it is the connection that failed, in an unknown place.
_OF_THE_SYSTEM = frozenset({"Success", "No error", *map(os.strerror, errno.errorcode)})


def submit_error(result: CommandResult) -> SchedulerError:
    """Say why sbatch made no job, or that it may have made one.

    Only words that are known to be a refusal count as "no job". A killed sbatch, one that ended
    without a word, and one that told an id and failed, may have made a job; so may one whose words
    nobody knows, for example those of a wrapper. A connection error after sbatch has begun to retry
    is ambiguous as well: the first try may have got through.
    """
    words = result.describe()
    if result.returncode == NOT_FOUND:
        return SchedulerUnavailableError(f"{words}. {_NOT_FOUND_ADVICE}")
    if result.returncode is None or result.returncode < 0:
        return SubmitAmbiguousError(f"{words}; sbatch told no job id, but a job may exist")
    printed = " ".join(result.stdout.split())[:300]
    if printed and (result.returncode == 0 or sbatch.parse(result.stdout) is not None):
        return SubmitAmbiguousError(
            f"{words}; sbatch printed {printed!r}: a job may exist",
            unknown_words=result.returncode == 0,
        )
    if result.returncode == 0 or not result.stderr.strip():
        return SubmitAmbiguousError(
            f"{words}; sbatch told no job id, but a job may exist",
            unknown_words=bool(printed or result.stderr.strip()),
        )
    return _failure(_own_lines(result.stderr), words)


def _failure(said: str, words: str) -> SchedulerError:
    meaning = meaning_of(said)
    if meaning is Meaning.LIMIT:
        return SchedulerLimitError(words)
    if meaning is Meaning.UNAVAILABLE:
        return SchedulerUnavailableError(words)
    if meaning is Meaning.REFUSED or (meaning is not Meaning.AMBIGUOUS and _is_refusal(said)):
        return SubmitRefusedError(words)
    is_known = meaning is Meaning.AMBIGUOUS
    return SubmitAmbiguousError(
        f"{words}; sbatch did not say no, so a job may exist", unknown_words=not is_known
    )


def _is_refusal(said: str) -> bool:
    reasons = [match["why"].strip() for match in _FAILED.finditer(said)]
    if reasons:
        return reasons[-1] not in _OF_THE_SYSTEM
    return _BEFORE_ASKING.search(said) is not None


def _own_lines(stderr: str) -> str:
    """Return what sbatch itself said; all of it where nothing is marked as its own."""
    lines = stderr.splitlines()
    own = [line for line in lines if line.startswith(("sbatch:", "slurm", 'Try "sbatch'))]
    return "\n".join(own or lines)


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
