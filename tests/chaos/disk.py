"""A small file system of its own for a directory, which can be full, read-only or gone."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

MEGABYTES = 256


class Disk:
    """A tmpfs mounted at a path. What a fault mounts over it is taken off again by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mounts = 0

    def mount(self) -> None:
        """Mount it, empty."""
        self.path.mkdir(mode=0o700)
        self._mount("-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=700", "chaos", str(self.path))

    def unmount(self) -> None:
        """Take off all that was mounted here."""
        while self._mounts:
            # Lazily: a job that dies slowly may still have a file open.
            subprocess.run(["umount", "--lazy", str(self.path)], check=False)
            self._mounts -= 1

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte free for a while."""
        ballast = self.path / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * (1 << 16))
            with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0")
            yield
        finally:
            ballast.unlink(missing_ok=True)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing be written by path for a while; files that are open stay writable.

        A remount is refused while a file is open for writing, so the same is bound over it.
        """
        self._mount("--bind", str(self.path), str(self.path))
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(self.path)], check=True)
            yield
        finally:
            self._unmount_one()

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """Let the directory be an empty one that nobody may write to, as a lost mount leaves it."""
        self._mount("-t", "tmpfs", "-o", "ro,size=4k", "chaos", str(self.path))
        try:
            yield
        finally:
            self._unmount_one()

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True)
        self._mounts += 1

    def _unmount_one(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)
        self._mounts -= 1


def can_mount() -> bool:
    """Whether this process may mount file systems."""
    return os.geteuid() == 0
