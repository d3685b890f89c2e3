"""The files that jobs and agent share, wherever they are: one Protocol, here and by SFTP.

Everything is private to its user. All of it blocks, and is for threads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hpc_agent.hostile_files import opened_regular, read_at_most
from hpc_agent.private_directories import private_directory
from hpc_agent.private_files import LINKS_REFUSED, create_private, write_private

READ_LIMIT = 1 << 20


class Files(Protocol):
    """Files of the cluster, by their absolute paths there.

    Every method raises OSError (FileNotFoundError where it is that), and SchedulerUnavailableError
    when the machine that has the files cannot be reached.

    What is read may have been written by user code: only regular files are, at most ``limit`` bytes
    of them, and no link is followed below ``within`` (by default the directory that the file is
    in). Anything else raises UnfitFileError.
    """

    def make_directory(self, path: Path, *, parents: bool = True) -> None:
        """Make a directory for us alone (mode 0700), with those above it, or take one that is ours.

        Without ``parents`` the one above is there, and known to be private. Raises UnsafePathError
        for one that is not ours, or into which others may have put something.
        """

    def is_directory(self, path: Path, *, follow: bool = True) -> bool:
        """Whether there is a directory; without ``follow`` a link to one is none."""

    def write(self, path: Path, data: bytes | str, *, durable: bool = False) -> None:
        """Replace a file (mode 0600) at once; ``durable``: it is on disk when this returns."""

    def create(self, path: Path, data: bytes | str) -> None:
        """Make a file (mode 0600), complete at once. Raises FileExistsError when one is there."""

    def touch(self, path: Path) -> None:
        """Make an empty file (mode 0600); one that is there is left as it is."""

    def read(self, path: Path, *, limit: int = READ_LIMIT, within: Path | None = None) -> bytes:
        """Return a file's content, as it is now and not as a cache has it."""

    def read_from(self, path: Path, offset: int, size: int, *, within: Path | None = None) -> bytes:
        """Return at most ``size`` bytes of a file that may grow; empty at its end."""

    def size(self, path: Path, *, within: Path | None = None) -> int:
        """Return how many bytes a file has now."""

    def names(self, path: Path) -> Sequence[str]:
        """Return what is in a directory."""

    def modified(self, path: Path) -> float:
        """Return when what is there was changed, in epoch seconds; of a link, the link itself."""

    def link(self, target: Path, path: Path) -> None:
        """Let ``path`` have the content of ``target``, which is never changed nor removed."""

    def symlink(self, target: str, path: Path) -> None:
        """Make a symbolic link; one that is there is left as it is."""

    def remove(self, path: Path) -> None:
        """Remove a file or a link; none is no error."""

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all in it, as far as that is possible; none is no error.

        Of a link the link is removed, wherever it is.
        """


class LocalFiles:
    """Files of a file system that this machine mounts."""

    def make_directory(self, path: Path, *, parents: bool = True) -> None:
        """See Files.make_directory."""
        private_directory(path, parents=parents)

    def is_directory(self, path: Path, *, follow: bool = True) -> bool:
        """See Files.is_directory."""
        try:
            return stat.S_ISDIR(path.stat(follow_symlinks=follow).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def write(self, path: Path, data: bytes | str, *, durable: bool = False) -> None:
        """See Files.write."""
        write_private(path, data, durable=durable)

    def create(self, path: Path, data: bytes | str) -> None:
        """See Files.create."""
        create_private(path, data)

    def touch(self, path: Path) -> None:
        """See Files.touch."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def read(self, path: Path, *, limit: int = READ_LIMIT, within: Path | None = None) -> bytes:
        """See Files.read."""
        with opened_regular(path, within or path.parent) as file:
            return read_at_most(path, file, limit)

    def read_from(self, path: Path, offset: int, size: int, *, within: Path | None = None) -> bytes:
        """See Files.read_from."""
        with opened_regular(path, within or path.parent) as file:
            return os.pread(file, size, offset)

    def size(self, path: Path, *, within: Path | None = None) -> int:
        """See Files.size."""
        with opened_regular(path, within or path.parent) as file:
            return os.fstat(file).st_size

    def names(self, path: Path) -> Sequence[str]:
        """See Files.names."""
        return os.listdir(path)  # noqa: PTH208

    def modified(self, path: Path) -> float:
        """See Files.modified."""
        return path.lstat().st_mtime

    def link(self, target: Path, path: Path) -> None:
        """See Files.link; a copy where the file system refuses hard links.

        What is there may be half a copy, of a disk that became full.
        """
        if _is_whole(path, target):
            return
        path.unlink(missing_ok=True)
        try:
            path.hardlink_to(target)
        except OSError as error:
            if error.errno not in LINKS_REFUSED:
                raise
            write_private(path, target.read_bytes())

    def symlink(self, target: str, path: Path) -> None:
        """See Files.symlink."""
        with contextlib.suppress(FileExistsError):
            path.symlink_to(target)

    def remove(self, path: Path) -> None:
        """See Files.remove."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """See Files.remove_tree; rmtree goes by descriptors, and is not led elsewhere."""
        with contextlib.suppress(OSError):
            if not self.is_directory(path, follow=False):
                path.unlink(missing_ok=True)
                return
        shutil.rmtree(path, ignore_errors=True)


def _is_whole(path: Path, target: Path) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    meant = target.stat()
    is_same = (there.st_dev, there.st_ino) == (meant.st_dev, meant.st_ino)
    return is_same or (stat.S_ISREG(there.st_mode) and there.st_size == meant.st_size)
