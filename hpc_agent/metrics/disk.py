"""How much may still be written."""

from __future__ import annotations

import os
from pathlib import Path


def free_bytes(directory: Path) -> int:
    """Return what is left to who is not root (statvfs(3), f_bavail)."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
