"""Directories for this user alone: that one is there does not say whose it is.

Where everybody may make something (/tmp, a scratch file system), somebody else may have been first,
with files in it that we would take for our own. The rules are pure; they hold here and by SFTP.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.errors import UnsafePathError

log = logging.getLogger(__name__)

PRIVATE = 0o700
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_ROOT = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """Type, mode and owner of what a path names."""

    mode: int
    uid: int

    @property
    def is_open(self) -> bool:
        """Whether others may do anything with it."""
        return bool(self.mode & _OTHERS)

    @property
    def is_writable(self) -> bool:
        """Whether others may put anything into it."""
        return bool(self.mode & _OTHERS_WRITE)


Look = Callable[[Path], Seen]


def private_directory(path: Path, *, parents: bool = True) -> None:
    """Make a directory (mode 0700) with those above it, or take one that is ours already.

    Others lose their access to one that is ours. Without ``parents`` the one above is there, and
    known to be private. Raises UnsafePathError for one that is not ours, or in which others may
    have put something, and OSError.
    """
    if _make(path, parents=parents) and not parents:
        return
    me = os.geteuid()
    if parents:
        require_own_way(path, seen_at, follow=seen_behind, me=me)
        path = path.resolve()
    require_own(path, seen_at(path), me=me)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        seen = Seen(status.st_mode, status.st_uid)
        require_own(path, seen, me=me)
        if seen.is_open:
            require_nothing_planted(path, seen, is_empty=not os.listdir(descriptor))  # noqa: PTH208
            os.fchmod(descriptor, closed(path, seen))
    finally:
        os.close(descriptor)


def own_directory(path: Path) -> None:
    """Make a directory that others may read, or take one into which nobody else can write.

    Raises UnsafePathError and OSError.
    """
    _make(path, parents=True)
    me = os.geteuid()
    require_own_way(path, seen_at, follow=seen_behind, me=me)
    seen = seen_behind(path)
    require_own(path, seen, me=me)
    if seen.mode & stat.S_IWOTH:
        raise UnsafePathError(f"{path} can be written by others: run `chmod o-w {path}`")


def require_own_way(path: Path, look: Look, *, follow: Look, me: int) -> None:
    """Raise UnsafePathError when somebody may have made, or may swap, what leads to ``path``.

    A directory above that everybody may write to must be sticky, and what we go through there must
    be ours or root's; a link at the end as well. ``look`` is lstat(2), ``follow`` is stat(2).
    """
    for above, place in zip(path.parents, (path, *path.parents), strict=False):
        if not follow(above).mode & stat.S_IWOTH:
            continue
        if not follow(above).mode & stat.S_ISVTX:
            raise UnsafePathError(
                f"everybody may replace {place}, since {above} can be written by all: "
                f"name a directory elsewhere, or run `chmod o-w {above}`"
            )
        _require_trusted(place, look(place), me=me)
    seen = look(path)
    if stat.S_ISLNK(seen.mode):
        _require_trusted(path, seen, me=me)


def require_own(path: Path, seen: Seen, *, me: int) -> None:
    """Raise UnsafePathError for what is no directory, or somebody else's."""
    if not stat.S_ISDIR(seen.mode):
        raise UnsafePathError(f"{path} is not a directory: move it away")
    if seen.uid != me:
        raise UnsafePathError(
            f"{path} belongs to another user (uid {seen.uid}, not {me}): name a directory of your "
            "own, or have it removed"
        )


def require_nothing_planted(path: Path, seen: Seen, *, is_empty: bool) -> None:
    """Raise UnsafePathError when others may have put something into a directory of ours."""
    if seen.is_writable and not is_empty:
        raise UnsafePathError(
            f"others can write to {path} (mode {stat.S_IMODE(seen.mode):04o}), and what is in it "
            f"may be theirs: look who owns it (`ls -lA {path}`), then run `chmod 700 {path}`"
        )


def closed(path: Path, seen: Seen) -> int:
    """Return the mode that leaves others nothing, and say so in the log."""
    mode = stat.S_IMODE(seen.mode)
    log.warning("%s was open to others (mode %04o): now it is not", path, mode)
    return mode & ~_OTHERS


def weakness(path: Path) -> str | None:
    """Say who else may replace a directory, or one above it; None when nobody but root can.

    A site may mean it so, for a group's project directory: this is for who asks.
    """
    me = os.geteuid()
    for above in path.resolve().parents:
        with contextlib.suppress(FileNotFoundError):
            seen = seen_behind(above)
            if seen.uid not in {_ROOT, me}:
                return f"{above} belongs to uid {seen.uid}, who can replace what is in it"
            if seen.is_writable and not seen.mode & stat.S_ISVTX:
                return f"others can replace what is in {above} (mode {stat.S_IMODE(seen.mode):04o})"
    return None


def seen_at(path: Path) -> Seen:
    """Return what lstat(2) says."""
    status = path.lstat()
    return Seen(status.st_mode, status.st_uid)


def seen_behind(path: Path) -> Seen:
    """Return what stat(2) says: of a link, what it leads to."""
    status = path.stat()
    return Seen(status.st_mode, status.st_uid)


def _require_trusted(place: Path, seen: Seen, *, me: int) -> None:
    if seen.uid not in {_ROOT, me}:
        raise UnsafePathError(
            f"{place} belongs to another user (uid {seen.uid}), who made it where everybody may "
            "make something: name a directory of your own"
        )


def _make(path: Path, *, parents: bool) -> bool:
    """Make what is missing, each with mode 0700: mkdir -p would leave those above to the umask.

    Returns whether the last one was made, and so is ours.
    """
    try:
        path.mkdir(PRIVATE)
    except FileExistsError:
        return False
    except FileNotFoundError:
        if not parents or path.parent == path:
            raise
        _make(path.parent, parents=True)
        return _make(path, parents=False)
    return True
