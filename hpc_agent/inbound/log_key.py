"""Keys of compute logs, as jobs and agents name them and the control plane makes paths of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.names import is_file_name

_MOST_PARTS = 16
_LONGEST_PART = 200  # bytes; file systems take names of 255, and an ending follows
_LONGEST_NAME = 1000
"""Characters of the last part, which Dagster replaces by a digest where a file cannot be named so.

It counts characters and not bytes (``get_captured_local_path`` of LocalComputeLogManager).
"""


@dataclass(frozen=True, slots=True)
class LogKey:
    """``(RUN_ID, "compute_logs", FILE_KEY)``, or what schedules and sensors take; never a way up.

    ``dagster/_core/storage/compute_log_manager.py``, ``build_log_key_for_run``.
    """

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, parts: Sequence[str]) -> Self:
        """Take a key of somebody's. Raises InputError where a part could name another place."""
        if not 0 < len(parts) <= _MOST_PARTS:
            raise InputError(f"a log key has 1 to {_MOST_PARTS} parts, not {len(parts)}")
        *directories, name = parts
        most = _LONGEST_NAME if name.isascii() else _LONGEST_PART
        for part, longest in [*((each, _LONGEST_PART) for each in directories), (name, most)]:
            if not is_file_name(part, longest=longest):
                raise InputError(f"bad log key: {part[:80]!r} is not the name of a file")
        return cls(tuple(parts))

    def __str__(self) -> str:
        return "/".join(self.parts)
