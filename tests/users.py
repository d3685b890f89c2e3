"""A second unix user, for tests: what somebody else on the machine can make and read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.environments import environment_with_ours

NOBODY = 65534
STRANGER = 61234


def as_user(uid: int, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command as another user, without any capability."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("to run commands as another user needs root and setpriv")
    who = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all"]
    return subprocess.run(
        ["setpriv", *who, "--", *argv], check=False, capture_output=True, text=True, cwd="/"
    )


def plant(uid: int, script: str, *arguments: Path) -> None:
    """Let another user run a line of shell with the arguments $1, $2, …"""
    done = as_user(uid, "sh", "-euc", f"umask 0; {script}", "sh", *map(str, arguments))
    assert done.returncode == 0, done.stderr


def can_read(uid: int, path: Path) -> bool:
    """Whether another user can read a file."""
    return as_user(uid, "cat", str(path)).returncode == 0


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask of this process for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def sticky_place() -> Iterator[Path]:
    """Yield a directory as /tmp is one, where everybody may make something."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o1777)
        yield Path(directory)


def environment_for_all(directory: Path) -> Path:
    """Make a virtual environment with our packages that every user can run; skip where none can be.

    Its interpreter is the one that the tests run on, or the machine's own of the same version.
    """
    version = f"python3.{sys.version_info.minor}"
    candidates = (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin"))
    # By way of a shell: setpriv itself looks for its program with root's rights.
    found = [
        each
        for each in candidates
        if each and as_user(NOBODY, "sh", "-c", '"$0" -V', each).returncode == 0
    ]
    if not found:
        pytest.skip(f"other users of this machine can run no {version}")
    environment_with_ours(directory, found[0])
    ours = Path(sys.executable).parent
    for name in ("hpc-agent", "dagster", "dagster-daemon", "dagster-webserver"):
        _, _, body = (ours / name).read_text().partition("\n")
        (directory / "bin" / name).write_text(f"#!{directory}/bin/python\n{body}")
        (directory / "bin" / name).chmod(0o755)
    return directory
