"""The agent's own log."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from hpc_agent.config import Logging


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure_logging(settings: Logging) -> None:
    """Send the log to standard error, in the form and from the level that is asked for."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "uvicorn.access", "uvicorn.error", "paramiko"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
