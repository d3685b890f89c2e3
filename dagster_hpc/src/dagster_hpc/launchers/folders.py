"""Directories of jobs where no agent makes them: one for each run, one in it for each job."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

from dagster_hpc.jobs import JobError, JobName

_LAST_BYTES = 4096
_LAST_LINES = 20


def private(path: Path) -> Path:
    """Make a directory for this user alone. Raises JobError when it is somebody else's."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise JobError(f"{path} is not a directory that only you can write to")
    return path


def scratch() -> Path:
    """Return where this user's runs have their directories on this machine."""
    return Path(tempfile.gettempdir()) / f"dagster-hpc-{os.geteuid()}"


def folder(base: Path, run_id: str, job: JobName) -> Path:
    """Return a job's directory below ``base``; any name will do."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", job.name)[:60]
    digest = hashlib.sha256(job.name.encode()).hexdigest()[:8]
    return base / re.sub(r"[^A-Za-z0-9_-]+", "_", run_id) / f"{readable}-{digest}-{job.attempt}"


def last_lines(path: Path) -> str:
    """Return the end of a text file, "" when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LAST_BYTES))
            lines = file.read(_LAST_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LAST_LINES:])
