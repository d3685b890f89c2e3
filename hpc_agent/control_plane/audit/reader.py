"""Reading the audit log: ``control-plane audit``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hpc_agent.control_plane.audit.log import old_files
from hpc_agent.errors import ConfigError

_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_entries(path: Path, since: datetime | None = None) -> Iterator[dict[str, Any]]:
    """Yield the entries, the oldest first. What is no entry is passed over."""
    for file in (*reversed(old_files(path)), path):
        try:
            lines = file.open("rb")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"cannot read {file}: {error.strerror}") from error
        with lines:
            for line in lines:
                entry = _entry(line)
                if entry and (since is None or datetime.fromisoformat(entry["time"]) >= since):
                    yield entry


def moment(text: str, now: datetime) -> datetime:
    """Return the time that ``2026-03-01``, ``2026-03-01T12:00`` or ``90m`` (ago) mean."""
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is no time: write 2026-03-01, 2026-03-01T12:00 or how long ago: 90m, 7d"
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def line_of(entry: dict[str, Any]) -> str:
    """Return an entry for people; the file is ASCII, and so is this."""
    about = " ".join(f"{name}={','.join(map(str, values))}" for name, values in _about(entry))
    who = f"{entry['who']} ({entry['role'] or entry['way']})"
    where = f" from {entry['from']}" if entry["from"] else ""
    line = f"{entry['time']}  {entry['outcome']:8}{entry['action']}: {entry['what']} {about}"
    return ascii(f"{line.rstrip()}  by {who}{where}")[1:-1]


def _about(entry: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for name, values in entry["about"].items():
        yield name, values if isinstance(values, list) else [values]


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
        return found if datetime.fromisoformat(found["time"]).tzinfo else None
    except (ValueError, KeyError, TypeError):
        return None
