"""Files that nobody else may read, written so that a reader sees the old content or the new."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from hpc_agent.errors import UnsafePathError

# Of file systems, and of container mounts, that know no hard links; link(2).
LINKS_REFUSED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


def write_private(path: Path, data: bytes | str, *, durable: bool = False) -> None:
    """Write a file atomically with mode 0600; ``durable``: it is on disk when this returns."""
    with _complete(path, data, durable=durable) as temporary:
        temporary.replace(path)
    if durable:
        _sync_directory(path.parent)


def require_private(path: Path) -> None:
    """See that a file is regular, ours, and shut to others; its mode is mended.

    What is in it may have been made by others otherwise. Raises UnsafePathError, FileNotFoundError.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePathError(f"{path} is not a regular file: move it away")
    if status.st_uid != os.geteuid():
        raise UnsafePathError(
            f"{path} belongs to another user (uid {status.st_uid}): it was not made by this one"
        )
    if status.st_mode & 0o077:
        path.chmod(0o600)


def prepare_database(path: Path) -> None:
    """Let a SQLite database be private before it is opened, and so all that SQLite makes beside it.

    SQLite gives ``-wal``, ``-shm`` and ``-journal`` the mode of the database (findCreateFileMode in
    os_unix.c), and a new database that of the umask. Raises UnsafePathError and OSError.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            require_private(path.with_name(path.name + suffix))


def create_private(path: Path, data: bytes | str) -> None:
    """Make a file, complete and on disk. Raises FileExistsError when there is one already."""
    with _complete(path, data, durable=True) as temporary:
        try:
            path.hardlink_to(temporary)
        except OSError as error:
            # A network file system may lose its answer and be asked again (open(2), O_EXCL).
            if temporary.stat().st_nlink != 2:
                if error.errno not in LINKS_REFUSED:
                    raise
                _create_in_place(path, data)
    _sync_directory(path.parent)


@contextlib.contextmanager
def _complete(path: Path, data: bytes | str, *, durable: bool) -> Iterator[Path]:
    """Yield a file beside ``path`` with this content; nothing of it is left, whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _fill(descriptor, data, durable=durable)
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # it has taken the other's place, or the disk is away
            temporary.unlink()


def _create_in_place(path: Path, data: bytes | str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _fill(descriptor, data, durable=True)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _fill(descriptor: int, data: bytes | str, *, durable: bool) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
