"""What the work directory's file system refuses now, in words: the one place that translates it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.errors import FilesUnavailableError


@dataclass(frozen=True, slots=True)
class _Trouble:
    what: str
    until: str


_FULL = _Trouble("is full", "there is room again")
_AWAY = _Trouble("does not answer", "its file server answers again")
_SHUT = _Trouble("may not be used by this account", "its permissions, or this login, are mended")
_ABSENT = _Trouble("is not there, as when it is not mounted", "it is there again")
_OTHER = _Trouble("cannot be used", "that is mended")
_TROUBLES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _Trouble("is over its quota", "there is room again"),
    errno.EFBIG: _FULL,
    errno.EROFS: _Trouble("is read-only", "it can be written again"),
    errno.ESTALE: _Trouble("is stale: its file server has changed", "it is mounted anew"),
    errno.EIO: _AWAY,
    errno.ENOTCONN: _AWAY,
    errno.ETIMEDOUT: _AWAY,
    errno.EHOSTDOWN: _AWAY,
    errno.EHOSTUNREACH: _AWAY,
    errno.ENETUNREACH: _AWAY,
    errno.ECONNREFUSED: _AWAY,
    errno.ESHUTDOWN: _AWAY,
    errno.EREMOTEIO: _AWAY,
    errno.ENODEV: _AWAY,
    errno.EAGAIN: _AWAY,
    errno.EACCES: _SHUT,
    errno.EPERM: _SHUT,
    errno.EKEYEXPIRED: _SHUT,
    errno.ENOKEY: _SHUT,
    errno.ENOENT: _ABSENT,
    errno.ENOTDIR: _ABSENT,
}
# Of these, time is the cure; what remains may also be a mistake in agent.yaml.
_PASSING = frozenset(_TROUBLES) - {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}


def is_passing(error: OSError) -> bool:
    """Whether an error is one of a disk that was there: full, read-only, stale or away."""
    return error.errno in _PASSING


def files_unavailable(directory: Path, error: OSError) -> FilesUnavailableError:
    """Return an error that says which directory it is, what of it, and what happens."""
    trouble = _TROUBLES.get(error.errno or 0, _OTHER)
    return FilesUnavailableError(
        f"work_dir {directory} {trouble.what} ({_words(error)}): runs and code servers wait until "
        f"{trouble.until}"
    )


@contextlib.contextmanager
def told_of(directory: Path) -> Iterator[None]:
    """Raise FilesUnavailableError for what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise files_unavailable(directory, error) from error


def _words(error: OSError) -> str:
    words = error.strerror or str(error) or type(error).__name__
    return f"{words}: {error.filename}" if isinstance(error.filename, str) else words
