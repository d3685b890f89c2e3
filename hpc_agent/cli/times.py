"""Times as people read and write them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from hpc_agent.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_AGO = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def time_of(at: float) -> str:
    """Return a time as people read it, for example ``2026-03-01 14:03 UTC``."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def iso_time_of(at: float) -> str:
    """Return a time as programs read it, for example ``2026-03-01T14:03:09Z``."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def length_of(seconds: float) -> str:
    """Return a length of time in its two largest units, for example ``2h 13m``."""
    whole = round(seconds)
    if whole < 1:
        return f"{max(seconds, 0.0):.1f}s"
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, length)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0"))


def seconds_of(option: str, given: str) -> float:
    """Return a length of time like ``90m`` or ``2d12h`` in seconds. Raises UsageError."""
    if not _AGO.fullmatch(given):
        raise UsageError(f"{option}: {given!r} is no length of time; give one like 90m, 12h or 2d")
    return sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(given))


def since_option(given: str | None) -> float | None:
    """Return the time that ``--since`` names, in seconds since the epoch.

    It is a length of time ago (``90m``, ``2d12h``), or a date or time in ISO 8601, of the local
    time zone unless it names one. Raises UsageError.
    """
    if given is None:
        return None
    if _AGO.fullmatch(given):
        return time.time() - seconds_of("--since", given)
    try:
        return datetime.fromisoformat(given).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since: {given!r} is no time; give one like 90m, 12h or 2d, or like 2026-03-01T14:00"
        ) from None
