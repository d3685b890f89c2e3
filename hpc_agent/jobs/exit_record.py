"""What the node program leaves in a job directory, and tells through the relay: end and claim.

User code can write these files too, and a job's token is in its environment. So nothing in them is
taken on trust: a field that is not what it should be is unknown, a record that says nothing is
none, and what is kept can be stored by SQLite and told as JSON. No content raises an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The node program's own are below 30 KB: 4 KiB of stderr, each byte six characters at most.
MAX_BYTES = 256 << 10

_OUTCOMES = frozenset({"exited", "terminated", "not_started", "duplicate", "out_of_memory"})
_RAN = frozenset({"exited", "terminated", "out_of_memory"})
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,100}")
_SIGNAL_NAME = re.compile(r"SIG[A-Z0-9]{1,12}")
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")
_NOT_A_WORD = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_HOSTNAME = 255  # HOST_NAME_MAX and a domain, RFC 1035
_LONGEST_REASON = 2000
_LONGEST_TAIL = 8192
_LARGEST_COUNT = 1 << 40  # of CPUs, MiB, KiB: far beyond any, and its bytes fit into 64 bits
_LAST_TIME = float(1 << 33)  # the year 2242
_MAX_RESTARTS = (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What Slurm gave a job, as its environment said; None where it did not."""

    cpus: int | None
    nodes: int | None
    memory_bytes: int | None
    gpus: int | None

    @classmethod
    def parse(cls, content: object) -> Allocation:
        """Read ``allocation`` of an exit record."""
        fields = content if isinstance(content, Mapping) else {}
        megabytes = _integer(fields.get("memory_mb"), 0, _LARGEST_COUNT)
        return cls(
            cpus=_integer(fields.get("cpus"), 0, _LARGEST_COUNT),
            nodes=_integer(fields.get("nodes"), 0, _LARGEST_COUNT),
            memory_bytes=None if megabytes is None else megabytes << 20,
            gpus=_integer(fields.get("gpus"), 0, _LARGEST_COUNT),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """The node program's last word (``exit.json``).

    ``key``, ``slurm_job_id`` and ``restart_count`` say who wrote it ("" and 0 where it does not
    say): whether that is the job in question, the reader decides.
    """

    outcome: str
    reason: str
    exit_code: int | None
    signal: int | None
    started_at: float | None
    ended_at: float
    hostname: str
    stderr_tail: str
    ended_on: str | None = None
    cpu_seconds: float | None = None
    max_rss_kb: int | None = None
    allocation: Allocation | None = None
    key: str = ""
    slurm_job_id: str = ""
    restart_count: int = 0

    @property
    def is_out_of_time(self) -> bool:
        """Whether it ended on the warning before its time limit (``sbatch --signal=B:USR1@N``).

        Slurm sees such a job exit by itself before the limit, and calls it FAILED.
        """
        return self.ended_on == "SIGUSR1"

    @property
    def ran(self) -> bool:
        """Whether the child was started at all."""
        return self.outcome in _RAN

    @classmethod
    def parse(cls, content: bytes | Mapping[str, Any] | None) -> ExitRecord | None:
        """Read a record; None for what is none, fields that are nonsense are unknown."""
        fields = _fields(content)
        if fields is None:
            return None
        outcome = fields.get("outcome", "exited")
        exit_code = _integer(fields.get("exit_code"), 0, 255)
        signal = _integer(fields.get("signal"), 1, 127)
        if not isinstance(outcome, str) or outcome not in _OUTCOMES:
            return None
        if outcome == "exited" and exit_code is None and signal is None:
            return None  # it says that something ended, and not how
        return cls(
            outcome=outcome,
            reason=_text(fields.get("reason"))[:_LONGEST_REASON],
            exit_code=exit_code,
            signal=signal,
            started_at=_time(fields.get("started_at")),
            ended_at=_time(fields.get("ended_at")) or 0.0,
            hostname=_word(fields.get("hostname"))[:_LONGEST_HOSTNAME],
            stderr_tail=_text(fields.get("stderr_tail"))[-_LONGEST_TAIL:],
            ended_on=_matching(_SIGNAL_NAME, fields.get("ended_on")) or None,
            cpu_seconds=_number(fields.get("cpu_seconds"), _LARGEST_COUNT),
            max_rss_kb=_integer(fields.get("max_rss_kb"), 0, _LARGEST_COUNT),
            allocation=Allocation.parse(fields.get("allocation")),
            key=_matching(_NAME, fields.get("key")),
            slurm_job_id=_matching(_NAME, fields.get("slurm_job_id")),
            restart_count=_integer(fields.get("restart_count"), 0, _MAX_RESTARTS) or 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Which start of a job has it (``claim``); ``slurm_job_id`` is "" without Slurm."""

    slurm_job_id: str
    restart_count: int
    hostname: str
    started_at: float | None
    key: str = ""

    @classmethod
    def parse(cls, content: bytes | Mapping[str, Any] | None) -> Claim | None:
        """Read a claim; None for what does not say whose it is."""
        fields = _fields(content)
        if fields is None:
            return None
        job_id = fields.get("slurm_job_id")
        restarts = _integer(fields.get("restart_count", 0), 0, _MAX_RESTARTS)
        if restarts is None or (job_id != "" and not _matching(_NAME, job_id)):
            return None
        return cls(
            slurm_job_id=str(job_id),
            restart_count=restarts,
            hostname=_word(fields.get("hostname"))[:_LONGEST_HOSTNAME],
            started_at=_time(fields.get("started_at")),
            key=_matching(_NAME, fields.get("key")),
        )


def _fields(content: object) -> Mapping[str, Any] | None:
    if isinstance(content, bytes):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            return None
    return content if isinstance(content, Mapping) else None


def _integer(value: object, least: int, most: int) -> int | None:
    """Return an integer within bounds; True and False are none."""
    is_one = isinstance(value, int) and not isinstance(value, bool)
    return value if is_one and isinstance(value, int) and least <= value <= most else None


def _number(value: object, most: float) -> float | None:
    """Return a number from 0 to ``most``; not a number, infinity and overflow are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= most:  # compares exactly, also an integer too large for a float
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _time(value: object) -> float | None:
    return _number(value, _LAST_TIME) or None


def _text(value: object) -> str:
    """Return what may hold lines, as text that has an encoding."""
    return _NOT_TEXT.sub("\ufffd", value) if isinstance(value, str) else ""


def _word(value: object) -> str:
    return _NOT_A_WORD.sub("\ufffd", value) if isinstance(value, str) else ""


def _matching(pattern: re.Pattern[str], value: object) -> str:
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""
