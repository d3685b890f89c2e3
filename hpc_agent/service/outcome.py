"""What an installation, or its removal, has done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done, and the commands or advice that come next, in order."""

    path: Path
    changed: bool
    next_steps: tuple[str, ...] = ()
