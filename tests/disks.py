"""Real file systems in trouble: a tmpfs that becomes full, or read-only, and works again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_BALLAST = ".ballast"


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted file system of 4 MB."""

    path: Path

    def fill(self, *, leave: int = 0) -> None:
        """Leave no byte free, or that many."""
        with (self.path / _BALLAST).open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"\0" * 65536)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            ballast.truncate(max(ballast.tell() - leave, 0))

    def free(self) -> None:
        """Have room again."""
        (self.path / _BALLAST).unlink(missing_ok=True)

    def make_read_only(self) -> None:
        """Take no writes any more."""
        _run("mount", "-o", "remount,ro", str(self.path))

    def make_writable(self) -> None:
        """Take writes again."""
        _run("mount", "-o", "remount,rw", str(self.path))


@contextmanager
def mounted_disk(path: Path) -> Iterator[Disk]:
    """Mount an empty disk at a directory; skips the test where this user may not."""
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk that is full")
    options = "size=4m,mode=700"
    mounting = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    done = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        _run("umount", "--lazy", str(path))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
