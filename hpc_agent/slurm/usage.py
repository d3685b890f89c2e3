"""sacct(1), asked for what jobs have used: their allocations and, below each, their steps."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from hpc_agent.slurm.printed import read_lines, split, unreadable
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.slurm.values import FIELD, integer, parse_job_id, parse_size

_FIELDS = (
    "JobID",
    "ElapsedRaw",
    "AllocCPUS",
    "TotalCPU",
    "ReqMem",
    "MaxRSS",
    "NNodes",
    "AllocTRES",
    "TRESUsageInMax",
    "TRESUsageInTot",
    "ConsumedEnergyRaw",
)
# NO_VAL64 and INFINITE64 of slurm.h, which 64 bits without a value are printed as.
_NO_NUMBER = (1 << 64) - 3
_CLOCK = re.compile(r"(?:([0-9]{1,9})-)?(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,9}(?:\.[0-9]+)?)")
_STEP = re.compile(r"(?P<job>[0-9_+]+)\.[a-z0-9_+]+")

_Row = Mapping[str, str]
_Number = TypeVar("_Number", int, float)


def arguments(job_ids: Iterable[str], *, since: datetime) -> list[str]:
    """Build the query; without ``--allocations``, since only steps have a MaxRSS."""
    return [
        "sacct",
        "--duplicates",
        "--parsable2",
        f"--delimiter={FIELD}",
        f"--starttime={since.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        f"--format={','.join(_FIELDS)}",
        f"--jobs={','.join(job_ids)}",
    ]


def parse(stdout: str) -> dict[str, Usage]:
    """Return what the last attempt of each job has used; what cannot be read is left out.

    Raises SchedulerUnreadableError when nothing can be.
    """
    used: dict[str, Usage] = {}
    for job_id, (allocation, steps) in _last_attempts(stdout).items():
        used[job_id] = _usage(allocation, steps)
    return used


def parse_cpu_time(text: str) -> float | None:
    """Return the seconds of ``01:02.345``, ``05:00:01`` or ``1-00:00:00``; None for nothing."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def _last_attempts(stdout: str) -> dict[str, tuple[_Row, Sequence[_Row]]]:
    """Return each job's last allocation with its steps (``17.batch``, ``17.0``).

    sacct lists the steps below their allocation; those that follow another job's, or a row that
    cannot be read, are nobody's.
    """
    printed = read_lines(stdout, len(_FIELDS))
    if not printed.has_header:
        raise unreadable("sacct", stdout)
    found: dict[str, tuple[_Row, Sequence[_Row]]] = {}
    current: str | None = None
    steps: list[_Row] = []
    for text in printed.rows:
        taken = split(text, len(_FIELDS))
        row = dict(zip(_FIELDS, taken[0], strict=True)) if taken is not None else {}
        word = row.get("JobID", "")
        step = _STEP.fullmatch(word)
        if step is None:
            current, steps = parse_job_id(word), []
            if current is not None:
                found[current] = (row, steps)
        elif step["job"] == current:
            steps.append(row)
    return found


def _usage(job: _Row, steps: Sequence[_Row]) -> Usage:
    cpus, nodes = _integer(job["AllocCPUS"]), _integer(job["NNodes"])
    allocated = _tres(job["AllocTRES"])
    sampled = [_tres(step[name]) for step in steps for name in ("TRESUsageInMax", "TRESUsageInTot")]
    return Usage(
        elapsed_seconds=_integer(job["ElapsedRaw"]),
        allocated_cpus=cpus,
        # Without a jobacct_gather plugin nothing is gathered, which sacct prints as zero.
        cpu_seconds=parse_cpu_time(job["TotalCPU"]) or None,
        requested_memory_bytes=_requested(job["ReqMem"], cpus=cpus, nodes=nodes),
        max_rss_bytes=_largest(parse_size(step["MaxRSS"]) for step in steps) or None,
        nodes=nodes,
        gpus=_integer(allocated.get("gres/gpu")),
        gpu_utilization=_largest(_number(tres.get("gres/gpuutil")) for tres in sampled),
        gpu_memory_bytes=_largest(
            parse_size(_tres(step["TRESUsageInMax"]).get("gres/gpumem", "")) for step in steps
        ),
        billing=_integer(allocated.get("billing")),
        energy_joules=_joules(job["ConsumedEnergyRaw"]),
    )


def _joules(text: str) -> int | None:
    """Return the energy of all nodes; sacct prints 0 where no plugin measures it."""
    joules = _integer(text)
    return joules if joules and joules < _NO_NUMBER else None


def _requested(text: str, *, cpus: int | None, nodes: int | None) -> int | None:
    """Return the bytes of the whole job: before 21.08, ReqMem was per node (n) or per CPU (c)."""
    amount = text.strip()
    size = parse_size(amount.rstrip("nc"))
    return size * {"n": nodes or 1, "c": cpus or 1}.get(amount[-1], 1) if size else None


def _tres(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name: value for name, _, value in pairs}


def _largest(values: Iterable[_Number | None]) -> _Number | None:
    return max((value for value in values if value is not None), default=None)


def _integer(text: str | None) -> int | None:
    return integer(text) if text else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None
