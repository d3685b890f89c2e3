"""How much room there is: on the disk of the agent's home, and where jobs have their files."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.config import AgentConfig

_ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A file system by what the agent has on it; bytes, None where it does not answer."""

    what: str
    path: str
    total_bytes: int | None
    free_bytes: int | None


def disks_of(config: AgentConfig) -> list[Disk]:
    """Return the file systems of this machine that the agent needs."""
    paths = {"home": config.home}
    if not config.has_files_elsewhere:
        paths["work_dir"] = config.work_dir
    return [_disk(what, path) for what, path in paths.items()]


def _disk(what: str, path: Path) -> Disk:
    """A file server that is away would hold whoever asks it for minutes."""
    found: list[tuple[int, int]] = []

    def ask() -> None:
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            return
        found.append((usage.total, usage.free))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    total, free = found[0] if found else (None, None)
    return Disk(what=what, path=str(path), total_bytes=total, free_bytes=free)
