"""The files that jobs and agent share, wherever they are: one Protocol, here and by SFTP.

Everything is private to its user. All of it blocks, and is for threads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hpc_agent.private_files import write_private


class Files(Protocol):
    """Files of the cluster, by their absolute paths there.

    Every method raises OSError (FileNotFoundError where it is that), and SchedulerUnavailableError
    when the machine that has the files cannot be reached.
    """

    def make_directory(self, path: Path) -> None:
        """Make a directory (mode 0700) and those above it; one that is there is left as it is."""

    def write(self, path: Path, data: bytes | str, *, durable: bool = False) -> None:
        """Replace a file (mode 0600) at once; ``durable``: it is on disk when this returns."""

    def touch(self, path: Path) -> None:
        """Make an empty file (mode 0600); one that is there is left as it is."""

    def read(self, path: Path) -> bytes:
        """Return a file's content, as it is now and not as a cache has it."""

    def read_from(self, path: Path, offset: int, size: int) -> bytes:
        """Return at most ``size`` bytes of a file that may grow; empty at its end."""

    def names(self, path: Path) -> Sequence[str]:
        """Return what is in a directory."""

    def link(self, target: Path, path: Path) -> None:
        """Let ``path`` have the content of ``target``, which is never changed nor removed."""

    def symlink(self, target: str, path: Path) -> None:
        """Make a symbolic link; one that is there is left as it is."""

    def remove(self, path: Path) -> None:
        """Remove a file; none is no error."""

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all in it, as far as that is possible; none is no error."""


class LocalFiles:
    """Files of a file system that this machine mounts."""

    def make_directory(self, path: Path) -> None:
        """See Files.make_directory."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, path: Path, data: bytes | str, *, durable: bool = False) -> None:
        """See Files.write."""
        write_private(path, data, durable=durable)

    def touch(self, path: Path) -> None:
        """See Files.touch."""
        path.touch(mode=0o600)

    def read(self, path: Path) -> bytes:
        """List the directory first: an NFS client may answer from its cache that a file is absent.

        See Files.read.
        """
        if path.name not in self.names(path.parent):
            raise FileNotFoundError(f"{path} does not exist")
        return path.read_bytes()

    def read_from(self, path: Path, offset: int, size: int) -> bytes:
        """See Files.read_from."""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def names(self, path: Path) -> Sequence[str]:
        """See Files.names."""
        return os.listdir(path)  # noqa: PTH208

    def link(self, target: Path, path: Path) -> None:
        """See Files.link; a copy where the file system refuses hard links."""
        if path.exists():
            return
        try:
            path.hardlink_to(target)
        except OSError:
            shutil.copyfile(target, path)

    def symlink(self, target: str, path: Path) -> None:
        """See Files.symlink."""
        with contextlib.suppress(FileExistsError):
            path.symlink_to(target)

    def remove(self, path: Path) -> None:
        """See Files.remove."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """See Files.remove_tree."""
        shutil.rmtree(path, ignore_errors=True)
