"""Slurm's commands: how they are run, and what a failed sbatch leaves open."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from dagster_hpc.jobs import JobError

# Texts of src/common/slurm_errno.c, slurm_opt.c and sbatch.c; its exit code is 1 for everything.
_FAILED = re.compile(r"^sbatch: error: Batch job submission failed: (?P<why>.+)$", re.MULTILINE)
_IN_DOUBT = re.compile(
    r"Socket timed out on send/recv|Zero Bytes were transmitted or received"
    r"|Message receive failure|Unexpected message rec|Header lengths are longer"
    r"|Insane message length|Communication shutdown failure|Failed to send entire message"
    r"|controller \((?:send|receive|shutdown) failure\)|Protocol authentication error"
    r"|Connection reset|Broken pipe|endpoint is not connected|(?:Read|Write) would block"
    r"|Connection timed out (?:reading|writing)|Connection forced closed"
    r"|Received zero length message|Received message length < 0",
    re.IGNORECASE,
)
_BEFORE_ASKING = re.compile(
    r"^sbatch: (?:error|fatal): (?:Unable to open file|Batch script|This does not look like"
    r"|Invalid|Malformed|Numeric argument|Unable to (?:add|process) option|Unrecogni[sz]ed"
    r"|Incompatible|Maximum node count|Priority must|Too few processes|Cannot specify"
    r"|cli_filter plugin terminated|.*\b(?:mutually exclusive|is not valid|only permitted by))"
    r"|^sbatch: (?:unrecognized|invalid) option|^sbatch: option '.*' (?:requires|doesn't|is ambig)"
    r'|^Try "sbatch --help"',
    re.IGNORECASE | re.MULTILINE,
)
# Of the C library: then it is the connection that failed, in an unknown place.
_OF_THE_SYSTEM = frozenset({"Success", "No error", *map(os.strerror, errno.errorcode)})


def output(argv: Sequence[str], *, seconds: float) -> str:
    """Return what a command prints. Raises JobError, also when it has not ended in time."""
    environment: Mapping[str, str] = {
        # Nothing of an allocation that this process is in, and English words.
        **{name: value for name, value in os.environ.items() if not _is_of_a_job(name)},
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=seconds, env=environment
        )
    except OSError as error:
        raise JobError(f"{argv[0]}: {error.strerror}; is this a login node of Slurm?") from error
    except subprocess.TimeoutExpired as error:
        raise JobError(f"{argv[0]} has not answered in {seconds:g} s") from error
    if done.returncode != 0:
        raise JobError(f"{argv[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def leaves_open(error: JobError) -> bool:
    """Whether a failed sbatch may have made a job: only words that say no are a no."""
    said = str(error).removeprefix("sbatch: ")
    if isinstance(error.__cause__, OSError):
        return False
    if _IN_DOUBT.search(said):
        return True
    reasons = [match["why"].strip() for match in _FAILED.finditer(said)]
    if reasons:
        return reasons[-1] in _OF_THE_SYSTEM
    return _BEFORE_ASKING.search(said) is None


def _is_of_a_job(name: str) -> bool:
    return name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"
