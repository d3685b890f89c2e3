"""Reading files that user code may have replaced: by a link, a FIFO, a device, or a terabyte.

Whoever reads one must not wait for ever, must not be led elsewhere, and must not be filled up.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that nobody writes into would wait (open(2)).
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class UnfitFileError(OSError):
    """What is there is no regular file of its place, too large, or shut by its own mode.

    Unlike other errors this one says something of the file: nobody will ever read it.
    """


@contextlib.contextmanager
def opened_regular(path: Path, within: Path) -> Iterator[int]:
    """Yield a descriptor of a regular file, on a way below ``within`` that has no links.

    The directory is listed first: an NFS client may answer from its cache that a file is absent.
    Raises UnfitFileError, FileNotFoundError, and what else open(2) has.
    """
    *above, name = path.relative_to(within).parts
    with contextlib.ExitStack() as stack:
        place = _open(str(within), _DIRECTORY, None, stack)
        with _understood(path, within):
            for part in above:
                require_directory(path, os.stat(part, dir_fd=place, follow_symlinks=False).st_mode)
                place = _open(part, _DIRECTORY | os.O_NOFOLLOW, place, stack)
            if name not in os.listdir(place):  # noqa: PTH208
                raise FileNotFoundError(f"{path} does not exist")
            require_regular(path, os.stat(name, dir_fd=place, follow_symlinks=False).st_mode)
            file = _open(name, _FILE, place, stack)
            require_regular(path, os.fstat(file).st_mode)
        yield file


def read_at_most(path: Path, file: int, limit: int) -> bytes:
    """Return the content of an open file. Raises UnfitFileError when it has more than ``limit``."""
    require_size(path, os.fstat(file).st_size, limit)
    parts = []
    left = limit + 1
    while left > 0 and (part := os.read(file, left)):
        parts.append(part)
        left -= len(part)
    require_size(path, limit + 1 - left, limit)
    return b"".join(parts)


def require_directory(path: Path, mode: int | None) -> None:
    """Raise UnfitFileError when the way to ``path`` leads through something else."""
    if mode is None or not stat.S_ISDIR(mode):
        raise UnfitFileError(f"{path}: not in a directory of its own")


def require_regular(path: Path, mode: int | None) -> None:
    """Raise UnfitFileError for links, FIFOs, devices, sockets and directories."""
    if mode is None or not stat.S_ISREG(mode):
        raise UnfitFileError(f"{path} is not a regular file")


def require_size(path: Path, size: int | None, limit: int) -> None:
    """Raise UnfitFileError for a file that is too large."""
    if size is None or size > limit:
        raise UnfitFileError(f"{path} is larger than {limit} bytes")


def require_open_modes(path: Path, within: Path, mode_of: Callable[[Path], int | None]) -> None:
    """Raise UnfitFileError when it is a mode below ``within`` that forbids us to read.

    Then user code has shut it, and waiting opens nothing; any other refusal is the file system's.
    """
    place = within
    parts = path.relative_to(within).parts
    for number, part in enumerate(parts, 1):
        place /= part
        needed = stat.S_IRUSR if number == len(parts) else stat.S_IRUSR | stat.S_IXUSR
        if (mode_of(place) or 0) & needed != needed:
            raise UnfitFileError(f"{path} cannot be read: the mode of {place} forbids it")


@contextlib.contextmanager
def _understood(path: Path, within: Path) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as error:  # also of O_NOFOLLOW with O_DIRECTORY, on a link
        raise UnfitFileError(f"{path}: not in a directory of its own") from error
    except PermissionError:
        require_open_modes(path, within, lambda place: place.lstat().st_mode)
        raise


def _open(name: str, flags: int, place: int | None, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(name, flags, dir_fd=place)
    stack.callback(os.close, descriptor)
    return descriptor
