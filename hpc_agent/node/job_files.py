"""Files of the job directory: written complete or not at all, read whatever user code made of them.

User code of an earlier start may have put a FIFO, a link or a terabyte in the place of any file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import Any, Dict, Iterator, Optional

LARGEST = 8 << 20  # of spec.json, which has a run's whole command line; the others are far smaller
# Of file systems, and of container mounts, that know no hard links; link(2).
_LINKS_REFUSED = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class NotRegular(OSError):  # noqa: N818
    """What is there is no regular file, or too large to be what it should be."""


def read_regular(path: str, limit: int = LARGEST, follow: bool = False) -> bytes:
    """Return the content of a regular file; with ``follow`` it may be reached by a link.

    Its directory is listed first: NFS caches the absence of a name for a while. Raises OSError.
    """
    os.listdir(os.path.dirname(os.path.realpath(path) if follow else path) or ".")
    descriptor = open_regular(path, os.O_RDONLY, follow=follow)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise NotRegular("%s is larger than %d bytes" % (path, limit))
    return content


def open_output(path: str) -> int:
    """Open a file to append to, in the place of whatever is not one. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        descriptor = open_regular(path, flags)
    except NotRegular:
        os.unlink(path)
        descriptor = open_regular(path, flags)
    os.set_blocking(descriptor, True)
    return descriptor


def write_json(path: str, document: Dict[str, Any]) -> None:
    """Replace a file atomically and durably: a reader sees the old one or all of the new one."""
    with _complete(path, document) as temporary:
        os.replace(temporary, path)
    sync_directory(os.path.dirname(path))


def create_json(path: str, document: Dict[str, Any]) -> bool:
    """Make a file, complete at once; False when there is one already. Raises OSError.

    link(2) is atomic on NFS and on the parallel file systems, and half a file cannot be: whoever
    dies in between leaves none. Where links are refused it is O_EXCL (open(2)), and half a file can
    be.
    """
    with _complete(path, document) as temporary:
        try:
            os.link(temporary, path)
        except OSError as error:
            # NFS may lose its answer, ask again, and be told that the file exists (open(2)).
            if os.stat(temporary).st_nlink != 2:
                if error.errno == errno.EEXIST:
                    return False
                if error.errno not in _LINKS_REFUSED:
                    raise
                if not _create_in_place(path, document):
                    return False
    sync_directory(os.path.dirname(path))
    return True


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parsed(content: bytes) -> Optional[Dict[str, Any]]:
    """Return a JSON object, None for whatever else that is."""
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


@contextlib.contextmanager
def _complete(path: str, document: Dict[str, Any]) -> Iterator[str]:
    """Yield the name of a file with this content; nothing of it is left, whatever happens."""
    # Not host and pid: in OCI bundles, every node program is process 1 of the same host name.
    temporary = "%s.%s.tmp" % (path, os.urandom(8).hex())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _fill(descriptor, document)
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # it has taken the other's place, or the disk is away
            os.unlink(temporary)


def _create_in_place(path: str, document: Dict[str, Any]) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    try:
        _fill(descriptor, document)
    except OSError:
        os.unlink(path)
        raise
    return True


def _fill(descriptor: int, document: Dict[str, Any]) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def open_regular(path: str, flags: int, follow: bool = False) -> int:
    """Open a regular file and nothing else. Raises OSError, NotRegular for whatever else it is."""
    # O_NONBLOCK: opening a FIFO that nobody else has open would wait for ever.
    flags |= os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        # ENXIO: a FIFO that nobody reads, or a socket; ELOOP: a link, which is not followed.
        if error.errno in (errno.ENXIO, errno.ELOOP):
            raise NotRegular("%s is not a regular file" % path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular("%s is not a regular file" % path)
    return descriptor
