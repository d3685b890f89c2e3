"""Read single values as Slurm's commands print them: durations, times, exit codes, absent ones.

Sources: the output field sections of squeue(1), sacct(1) and scontrol(1).
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

_OURS = secrets.token_hex(2)
FIELD = f"\x1f{_OURS}"
RECORD = f"\x1e{_OURS}"
"""Separators that no text of a job contains: ASCII unit separator and record separator, and letters
that are others in each process, so that nobody can write them into a name or a comment."""

ENVIRONMENT = {"TZ": "UTC", "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
"""Makes all commands print times as seconds since 1970, whatever the site's time zone is, and the
tasks of an array in full, which are cut at 64 characters else (squeue(1), sacct(1))."""

_ABSENT = frozenset({"", "(null)", "n/a", "none", "unknown", "invalid", "not_set", "0"})
_UNLIMITED = frozenset(
    {"unlimited", "infinite", "partition_limit", "not_set", "invalid", "n/a", ""}
)
_JOB = re.compile(r"[0-9]{1,18}(?:_[0-9]{1,9}|\+[0-9]{1,9})?")
_ARRAY = re.compile(r"(?P<array>[0-9]{1,18})_\[(?P<tasks>[^\]%]+)(?:%[0-9]+)?\]")
_TASKS = re.compile(r"(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9})(?::(?P<step>[0-9]{1,9}))?)?")
# The largest MaxArraySize is 4,000,001 (slurm.conf(5)); a record for each task must fit in memory.
_MOST_TASKS = 200_000
_LONGEST_NUMBER = 18
_LONGEST_DURATION = 100 * 366 * 86400
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]*)?|\.[0-9]+)([KMGTP]?)")
_WARNING = re.compile(r"(?:[BR]+:)?(?:(?:SIG)?USR1|10)(?:@(?P<seconds>[0-9]{1,9}))?")
_WARNING_SECONDS = 60  # sbatch(1), --signal
_DURATION = re.compile(
    r"(?:(?P<days>[0-9]{1,9})-)?(?P<clock>[0-9]{1,12}(?::[0-9]{1,9}){0,2})(?:\.[0-9]+)?"
)


def parse_job_id(text: str) -> str | None:
    """Return the id of one job (``17``, ``17_3``, ``17+0`` of a heterogeneous one), else None."""
    word = text.strip()
    return word if _JOB.fullmatch(word) else None


def parse_job_ids(text: str) -> list[str]:
    """Return the jobs of a record: ``17`` and ``17_3`` are one, ``17_[3-5,9%2]`` are many.

    sacct writes the tasks of an array that wait in one record, with the most that may run at once
    behind the ``%``, and the step of a range behind ``:``. Returns none for what is no id, and for
    a list that was cut (``17_[3,5,...]``): nobody knows who is in it.
    """
    match = _ARRAY.fullmatch(text.strip())
    if match is None:
        one = parse_job_id(text)
        return [] if one is None else [one]
    indices: list[int] = []
    for part in match["tasks"].split(","):
        found = _range_of(part)
        if found is None or len(indices) + len(found) > _MOST_TASKS:
            return []
        indices += found
    return [f"{match['array']}_{index}" for index in indices]


def _range_of(tasks: str) -> range | None:
    match = _TASKS.fullmatch(tasks)
    if match is None or match["step"] == "0":
        return None
    first = int(match["first"])
    return range(first, int(match["last"] or first) + 1, int(match["step"] or 1))


def integer(text: str) -> int | None:
    """Return a number that is written in ASCII digits and is not absurdly long, else None."""
    word = text.strip()
    is_number = word.isascii() and word.isdigit() and len(word) <= _LONGEST_NUMBER
    return int(word) if is_number else None


def parse_time(text: str) -> datetime | None:
    """Return an aware UTC time; None for ``N/A``, ``Unknown``, ``None`` and the like.

    Takes seconds since 1970 and ISO 8601 without zone, which is then read as UTC. None as well for
    what is no time.
    """
    try:
        return read_time(text)
    except ValueError:
        return None


def read_time(text: str) -> datetime | None:
    """Return what ``parse_time`` does. Raises ValueError for what is no time."""
    word = text.strip()
    if word.lower() in _ABSENT:
        return None
    seconds = integer(word)
    try:
        if seconds is not None:
            return datetime.fromtimestamp(seconds, UTC)
        return datetime.fromisoformat(word).replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"not a time: {text[:50]!r}") from None


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
        seconds = parse_duration(text)
    except ValueError:
        return None
    return seconds if seconds is not None and seconds <= _LONGEST_DURATION else None


def parse_warning(text: str) -> int | None:
    """Return how many seconds before the time limit ``--signal`` sends SIGUSR1, None if it doesn't.

    It may come up to 60 s earlier than that (sbatch(1)).
    """
    match = _WARNING.fullmatch(text.strip().upper())
    return int(match["seconds"] or _WARNING_SECONDS) if match else None


def parse_size(text: str) -> int | None:
    """Return the bytes of ``256M`` or ``4.5G``; None when it is no size."""
    match = _SIZE.fullmatch(text.strip())
    return int(float(match[1]) * _UNITS[match[2]]) if match else None


def parse_memory(text: str) -> int | None:
    """Return the bytes of ``--mem``, which counts megabytes without a unit; None for no size.

    A B may follow the unit, which makes no difference (str_to_mbytes() of Slurm).
    """
    if not text[-1:].isalpha():
        return parse_size(f"{text}M")
    return parse_size(re.sub("(?<=[KMGTP])B$", "", text.upper()))


def parse_exit_code(text: str) -> tuple[int | None, int | None]:
    """Return exit code and signal of ``3:0``, ``0:9`` or squeue's raw wait status ``768``."""
    first, colon, second = text.partition(":")
    code, number = integer(first), integer(second)
    if code is None or (colon and number is None):
        return None, None
    if not colon:
        return code >> 8, code & 0x7F or None
    return code, number or None


def parse_text(text: str) -> str:
    """Return a free text, with Slurm's spellings of nothing as the empty string."""
    return "" if text in {"(null)", "None", "N/A"} else text
