"""Read single values as Slurm's commands print them: durations, times, exit codes, absent ones.

Sources: the output field sections of squeue(1), sacct(1) and scontrol(1).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

FIELD = "\x1f"
RECORD = "\x1e"
"""Separators that no sane job name contains: ASCII unit separator and record separator."""

ENVIRONMENT = {"TZ": "UTC", "SLURM_TIME_FORMAT": "%s"}
"""Makes all commands print times as seconds since 1970, whatever the site's time zone is."""

_ABSENT = frozenset({"", "(null)", "n/a", "none", "unknown", "invalid", "not_set", "0"})
_UNLIMITED = frozenset(
    {"unlimited", "infinite", "partition_limit", "not_set", "invalid", "n/a", ""}
)
_ARRAY = re.compile(r"(?P<array>\d+)_\[(?P<tasks>[^\]%]+)(?:%\d+)?\]")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SIZE = re.compile(r"([0-9.]+)([KMGTP]?)")
_DURATION = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})(?:\.\d+)?")


def parse_job_ids(text: str) -> list[str]:
    """Return the jobs of a record: ``17`` and ``17_3`` are one, ``17_[3-5,9%2]`` are many.

    sacct writes the tasks of an array that wait in one record, with the most that may run at once
    behind the ``%``, and the step of a range behind ``:``.
    """
    match = _ARRAY.fullmatch(text.strip())
    if match is None:
        return [text.strip()]
    indices: list[int] = []
    for part in match["tasks"].split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        if not all(word.isdigit() for word in (first, last or "0", step or "0")):
            return [text.strip()]
        indices += range(int(first), int(last or first) + 1, int(step or 1))
    return [f"{match['array']}_{index}" for index in indices]


def parse_time(text: str) -> datetime | None:
    """Return an aware UTC time; None for ``N/A``, ``Unknown``, ``None`` and the like.

    Takes seconds since 1970 and ISO 8601 without zone, which is then read as UTC.
    """
    word = text.strip()
    if word.lower() in _ABSENT:
        return None
    try:
        if word.isdigit():
            return datetime.fromtimestamp(int(word), UTC)
        return datetime.fromisoformat(word).replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def parse_duration(text: str) -> int | None:
    """Return seconds of ``5:00``, ``1-02:03:04``, ``1-12`` or plain minutes; None for UNLIMITED.

    Raises ValueError for anything else. Without days the forms are minutes, minutes:seconds and
    hours:minutes:seconds; with days they are hours, hours:minutes and hours:minutes:seconds
    (sbatch(1), ``--time``).
    """
    word = text.strip().lower()
    if word in _UNLIMITED:
        return None
    match = _DURATION.fullmatch(word)
    if match is None:
        raise ValueError(f"not a Slurm duration: {text!r}")
    parts = [int(part) for part in match["clock"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return int(match["days"]) * 86400 + hours * 3600 + minutes * 60 + seconds
    if len(parts) == 3:
        return parts[0] * 3600 + parts[1] * 60 + parts[2]
    minutes, seconds = (*parts, 0)[:2]
    return minutes * 60 + seconds


def duration_or_none(text: str) -> int | None:
    """Return the seconds of a duration; None for unlimited ones and for those nobody can read."""
    try:
        return parse_duration(text)
    except ValueError:
        return None


def parse_size(text: str) -> int | None:
    """Return the bytes of ``256M`` or ``4.5G``; None when it is no size."""
    match = _SIZE.fullmatch(text.strip())
    return int(float(match[1]) * _UNITS[match[2]]) if match else None


def parse_memory(text: str) -> int | None:
    """Return the bytes of ``--mem``, which counts megabytes without a unit; None for no size."""
    return parse_size(text.upper() if text[-1:].isalpha() else f"{text}M")


def parse_exit_code(text: str) -> tuple[int | None, int | None]:
    """Return exit code and signal of ``3:0``, ``0:9`` or squeue's raw wait status ``768``."""
    word = text.strip()
    code, colon, number = word.partition(":")
    if not code.isdigit() or (colon and not number.isdigit()):
        return None, None
    if not colon:
        status = int(code)
        return status >> 8, status & 0x7F or None
    return int(code), int(number) or None


def parse_text(text: str) -> str:
    """Return a free text, with Slurm's spellings of nothing as the empty string."""
    return "" if text in {"(null)", "None", "N/A"} else text
