"""Faults of Slurm's commands: they hang, fail, lie, or lose what they have to say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from random import Random

from tests.chaos.bed import Bed
from tests.chaos.commands import COMMANDS
from tests.chaos.fault import ONCE, Fault, HasStruck
from tests.chaos.ledger import Expected

GROUP = "Slurm's commands hang, fail and lie"
QUERIES = ("squeue", "sacct", "scontrol")

# The first call of each command, or two of them where one alone would be repeated by luck.
_ONCE = 'if once a || once b; then struck; {do}; fi; exec "$REAL" "$@"'
_ALWAYS = "struck; {do}"
_AND_GO_ON = 'exec "$REAL" "$@"'


def _fault(
    name: str,
    text: str,
    script: str,
    *commands: str,
    hold_seconds: float = 15,
    patience_seconds: float = 200,
    short: bool = False,
    ends_runs: bool = False,
    expected: Expected = ONCE,
    outlasted: bool = False,
) -> Fault:
    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        with bed.commands.replaced(script, *commands) as struck:
            yield struck

    return Fault(
        name=name,
        group=GROUP,
        text=text,
        inject=inject,
        hold_seconds=hold_seconds,
        patience_seconds=patience_seconds,
        short=short,
        ends_runs=ends_runs,
        expected=expected,
        outlasted=outlasted,
    )


def _sbatch_once(
    name: str, text: str, do: str, *, patience: float = 200, short: bool = False
) -> Fault:
    script = _ONCE.format(do=do)
    return _fault(name, text, script, "sbatch", patience_seconds=patience, short=short)


# What a job_submit plugin does to a job, done to the arguments.
_REWRITE = (
    'for word in "$@"; do shift; case $word in --comment=*) word=--comment=site;; '
    '--job-name=*) word=--job-name=site;; esac; set -- "$@" "$word"; done'
)
_ACCEPT = '"$REAL" "$@" > /dev/null 2>&1'

_SBATCH = [
    _sbatch_once(
        "sbatch hangs",
        "sbatch does not end, twice, and nothing is submitted: the agent gives up after 150 s",
        "exec sleep 400",
        patience=300,
    ),
    _sbatch_once(
        "sbatch accepts and hangs",
        "two submissions are accepted, and sbatch does not end",
        f"{_ACCEPT}; exec sleep 400",
        patience=300,
    ),
    _fault(
        "sbatch fails",
        "sbatch refuses for 15 s, in words that nobody knows: a run may fail with these words",
        _ALWAYS.format(do="echo 'sbatch: error: the moon is full' >&2; exit 1"),
        "sbatch",
        # Who asks for what this Slurm does not have must hear it, whatever the words.
        expected=Expected(may_be_cut=True),
    ),
    _fault(
        "sbatch: limit",
        "sbatch fails for 15 s: a limit on submitted jobs is reached",
        _ALWAYS.format(
            do="echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; echo 'sbatch: error: Batch job "
            "submission failed: Job violates accounting/QOS policy (job submit limit, user'\"'\"'s "
            "size and/or time limits)' >&2; exit 1"
        ),
        "sbatch",
    ),
    _sbatch_once(
        "sbatch accepts and fails",
        "two submissions are accepted, and sbatch exits with 1 and a timeout",
        f"{_ACCEPT}; echo 'sbatch: error: Batch job submission failed: Socket timed out on "
        "send/recv operation' >&2; exit 1",
        short=True,
    ),
    _sbatch_once(
        "sbatch accepts, unknown error",
        "two submissions are accepted, and sbatch exits with 1 in words that nobody knows",
        f"{_ACCEPT}; echo 'sbatch: error: the moon is full' >&2; exit 1",
    ),
    _sbatch_once(
        "sbatch accepts, unknown words",
        "two submissions are accepted, and sbatch exits with 0 and no job id",
        f"{_ACCEPT}; echo 'your job is in good hands'; exit 0",
    ),
    _sbatch_once(
        "sbatch answer lost",
        "two submissions are accepted, and sbatch is killed before it says so",
        f"{_ACCEPT}; kill -9 $$",
    ),
    _sbatch_once("sbatch killed", "sbatch is killed twice before it submits", "kill -9 $$"),
    _fault(
        "name and comment rewritten",
        "the site's plugin replaces name and comment of all jobs",
        f"struck; {_REWRITE}; {_AND_GO_ON}",
        "sbatch",
    ),
    _fault(
        "rewritten, answer lost",
        "the same, and twice sbatch is killed before it has told the job's id",
        f"{_REWRITE}; " + _ONCE.format(do=f"{_ACCEPT}; kill -9 $$"),
        "sbatch",
    ),
]


def _query_fault(name: str, text: str, script: str, *commands: str, short: bool = False) -> Fault:
    """Return a fault that lasts longer than a job may be absent, and runs longer still."""
    return _fault(name, text, script, *commands, hold_seconds=28, outlasted=True, short=short)


_QUERIES = [
    _query_fault(
        "queries hang",
        "squeue, sacct and scontrol do not answer for 28 s",
        _ALWAYS.format(do="exec sleep 60"),
        *QUERIES,
    ),
    _query_fault(
        "queries fail",
        "squeue, sacct and scontrol exit with 1 for 28 s",
        _ALWAYS.format(do="echo 'error: something went wrong' >&2; exit 1"),
        *QUERIES,
    ),
    _query_fault(
        "banner",
        "each command prints two lines before its output, as a wrapper or start-up file does",
        _ALWAYS.format(
            do=f"echo 'Welcome to the cluster!'; echo 'Maintenance|on|Monday'; {_AND_GO_ON}"
        ),
        *QUERIES,
    ),
    _query_fault(
        "banner of sbatch",
        "sbatch prints two lines before the job's id",
        _ALWAYS.format(
            do=f"echo 'Welcome to the cluster!'; echo 'Project 4711 is charged'; {_AND_GO_ON}"
        ),
        "sbatch",
    ),
    _query_fault(
        "banner after",
        "each command prints a line after its output",
        _ALWAYS.format(do='"$REAL" "$@"; code=$?; echo "Have a nice day"; exit $code'),
        *QUERIES,
        "sbatch",
    ),
    _query_fault(
        "garbage",
        "squeue, sacct and scontrol print bytes that mean nothing, and exit with 0, for 28 s",
        _ALWAYS.format(do="head -c 3000 /dev/urandom; exit 0"),
        *QUERIES,
    ),
    _query_fault(
        "half",
        "squeue, sacct and scontrol print half of their output, and exit with 0, for 28 s",
        _ALWAYS.format(
            do='out=$("$REAL" "$@"; printf x); out=${out%x}; printf "%s" "$out" | '
            "head -c $((${#out} / 2)); exit 0"
        ),
        *QUERIES,
    ),
    _query_fault(
        "nothing",
        "squeue, sacct and scontrol print nothing, and exit with 0, for 28 s",
        _ALWAYS.format(do="exit 0"),
        *QUERIES,
    ),
    _query_fault(
        "all commands fail",
        "no command of Slurm can be executed for 28 s",
        _ALWAYS.format(do="echo 'error while loading shared libraries' >&2; exit 127"),
        *COMMANDS,
    ),
]
_SCANCEL = [
    _fault(
        "scancel fails",
        "runs are asked to end while scancel exits with 1 for 15 s",
        _ALWAYS.format(do="echo 'scancel: error: something went wrong' >&2; exit 1"),
        "scancel",
        ends_runs=True,
    ),
    _fault(
        "scancel hangs",
        "runs are asked to end while scancel does not answer for 15 s",
        _ALWAYS.format(do="exec sleep 60"),
        "scancel",
        ends_runs=True,
    ),
]
FAULTS = [*_SBATCH, *_QUERIES, *_SCANCEL]
