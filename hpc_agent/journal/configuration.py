"""Where the log of this process goes, from which level, in which form."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from hpc_agent.errors import ConfigError
from hpc_agent.journal.files import PrivateFileHandler, Rotation
from hpc_agent.journal.formats import JsonFormatter, TextFormatter
from hpc_agent.private_directories import private_directory

_CHATTY = ("httpx", "httpcore", "uvicorn.access", "uvicorn.error", "paramiko", "alembic")


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOptions:
    """``format`` is text or json; without a ``file`` the log goes to standard error."""

    level: str = "info"
    format: str = "text"
    file: Path | None = None
    rotation: Rotation = field(default_factory=Rotation)


def configure_journal(options: JournalOptions) -> None:
    """Let the log be as it is asked for. Raises ConfigError for a file that cannot be written."""
    handler = _handler(options)
    handler.setFormatter(JsonFormatter() if options.format == "json" else TextFormatter())
    logging.basicConfig(level=options.level.upper(), handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _handler(options: JournalOptions) -> logging.Handler:
    if options.file is None:
        return logging.StreamHandler(sys.stderr)
    try:
        if not options.file.parent.exists():  # the home, at a first start
            private_directory(options.file.parent)
        return PrivateFileHandler(options.file, options.rotation)
    except OSError as error:
        raise ConfigError(f"cannot write the log {options.file}: {error.strerror}") from error
