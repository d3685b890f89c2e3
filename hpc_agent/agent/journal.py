"""The agent's own log, and the output files of its jobs, as text on a terminal."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from hpc_agent.config import Logging
from hpc_agent.errors import HpcAgentError
from hpc_agent.files import Files

_FOLLOW_SECONDS = 0.5
_CHUNK = 1 << 18


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


def print_file(files: Files, path: Path, *, follow: bool) -> None:
    """Copy a job's output to standard output; with ``follow`` go on as it grows, until interrupted.

    Raises HpcAgentError for what is no file of the job's own directory, or is not there any more.
    """
    offset = 0
    while True:
        try:
            chunk = files.read_from(path, offset, _CHUNK, within=path.parent.parent)
        except OSError as error:
            raise HpcAgentError(f"{path}: {error.strerror or error}") from error
        if chunk:
            offset += len(chunk)
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        elif follow:
            time.sleep(_FOLLOW_SECONDS)
        else:
            return
