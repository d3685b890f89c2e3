"""Lines of the log: for people, or one JSON object each."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from hpc_agent.journal.about import NAMES, current

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# As Dagster's UI shows the ids of runs; requests have the same kind of ids.
_SHORT_ID = 8
_LONGEST = 60
_SHOWN = {"request_id": "request", "run_id": "run", "job_id": "job", "location": "location"}


class TextFormatter(logging.Formatter):
    """A line for people, with short ids of what it is about at its end."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line without what may follow it, such as a traceback."""
        fields, message = current(), super().formatMessage(record)
        shown = [
            f"{word} {_short(name, fields[name])}"
            for name, word in _SHOWN.items()
            if name in fields and fields[name] not in message
        ]
        return f"{message} [{', '.join(shown)}]" if shown else message


class JsonFormatter(logging.Formatter):
    """One object a line; whole ids of what it is about, as far as they are known."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = current()
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: fields[name] for name in NAMES if name in fields},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _short(name: str, value: str) -> str:
    """Ids come from elsewhere: what is in them makes no second line."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in value)
    return printable[: _SHORT_ID if name in {"request_id", "run_id"} else _LONGEST]
