"""Read single values of slurmrestd's JSON, in which versions of its API differ.

Up to v0.0.38 a number is a number, or null; since v0.0.39 it is mostly an object (``set``,
``infinite``, ``number``), and a state is a list of states (OpenAPI documents of 22.05 to 26.05).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import parse_exit_code

# NO_VAL and INFINITE of slurm.h, of 32 and 64 bits, and NO_CONSUME_VAL64, where they are sent as
# plain numbers. Those of 16 bits are ids of jobs and users elsewhere.
_NO_NUMBER = frozenset(
    {*((1 << size) - offset for size in (32, 64) for offset in (1, 2)), (1 << 64) - 3}
)
_NO_SMALL_NUMBER = frozenset({(1 << 16) - 1, (1 << 16) - 2})


NOT_AS_DOCUMENTED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
)
"""What reading an entry raises whose values are of other kinds than in the documents."""


def number(value: Any) -> int | None:
    """Return a number, or the id of a job or user; None for one that is not set, or infinite."""
    return _number(value, _NO_NUMBER)


def small_number(value: Any) -> int | None:
    """Return a number that has 16 bits in slurm.h, where it may be "no value" of so many bits."""
    return _number(value, _NO_NUMBER | _NO_SMALL_NUMBER)


def _number(value: Any, none: Collection[int]) -> int | None:
    if isinstance(value, Mapping):
        is_set = value.get("set") is True and value.get("infinite") is not True
        # What is said to be set is no "no value", whatever its size.
        return _number(value.get("number"), ()) if is_set else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return None if value in none else int(value)


def moment(value: Any) -> datetime | None:
    """Return an aware UTC time of seconds since 1970; None for none at all."""
    seconds = number(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def text(value: Any) -> str:
    """Return a text, a list joined by commas; "" for null."""
    if isinstance(value, list):
        return ",".join(str(each) for each in value)
    return "" if value is None else str(value)


def words(value: Any) -> list[str]:
    """Return a list of words: a list as it is, a text split at commas."""
    if isinstance(value, list):
        return [str(each) for each in value]
    return [word for word in text(value).split(",") if word]


def job_state(value: Any) -> tuple[JobState, str]:
    """Return the state, and as it was sent. Of several, a flag wins (COMPLETING), as in squeue."""
    sent = words(value)
    states = [JobState.parse(word) for word in sent]
    return (states[-1] if states else JobState.UNKNOWN), ",".join(sent)


def exit_code(value: Any) -> tuple[int | None, int | None]:
    """Return exit code and signal of a wait status, or of an object that has both."""
    if not isinstance(value, Mapping):
        status = number(value)
        return parse_exit_code(str(status)) if status is not None else (None, None)
    signal = value.get("signal")
    if isinstance(signal, Mapping):
        signal = signal.get("id", signal.get("signal_id"))
    return number(value.get("return_code")) or 0, small_number(signal) or None
