"""What of a configuration nobody else should read, put out of sight."""

from __future__ import annotations

import re
from typing import Any

from hpc_agent.config.layers import Key

HIDDEN = "***"
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_SECRET_NAME = re.compile(r"token|secret|passw|credential|api_?key|private", re.IGNORECASE)


def redacted(key: Key, value: Any) -> Any:
    """Return a value for others to see: no user in a URL, no arguments of a command for secrets.

    Variables of jobs are hidden by their names; they are no place for secrets, but who knows.
    """
    if key[-1].endswith("_command") and isinstance(value, list | tuple):
        return [*value[:1], *([HIDDEN] if len(value) > 1 else [])]
    if "variables" in key[:-1] and _SECRET_NAME.search(key[-1]):
        return HIDDEN
    if isinstance(value, list | tuple):
        return [redacted(key, each) for each in value]
    return _USER_IN_URL.sub(HIDDEN, value) if isinstance(value, str) else value
