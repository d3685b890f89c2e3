"""Files of a machine of the cluster by SFTP, on the connection that its commands use; blocking.

Source: paramiko's SFTPClient, which is no place for two threads at once; the extension
posix-rename@openssh.com (PROTOCOL of OpenSSH) replaces files at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.files import READ_LIMIT
from hpc_agent.hostile_files import (
    UnfitFileError,
    require_directory,
    require_open_modes,
    require_regular,
    require_size,
)
from hpc_agent.private_directories import (
    PRIVATE,
    Seen,
    closed,
    require_nothing_planted,
    require_own,
    require_own_way,
)
from hpc_agent.slurm.sftp_session import open_sftp
from hpc_agent.slurm.sftp_space import statvfs
from hpc_agent.slurm.ssh_shared import SharedConnection

if TYPE_CHECKING:
    import paramiko


class SftpFiles:
    """The files of a user on the other side; see Files."""

    def __init__(self, shared: SharedConnection) -> None:
        self._shared = shared
        self._client: paramiko.SFTPClient | None = None
        self._lock = threading.Lock()

    def make_directory(self, path: Path, *, parents: bool = True) -> None:
        """See Files.make_directory."""
        with self._talking(path.parent) as client:
            _make_directory(client, path, parents=parents)

    def is_directory(self, path: Path, *, follow: bool = True) -> bool:
        """See Files.is_directory."""
        with self._talking(path.parent) as client:
            return stat.S_ISDIR(_mode(client, path, follow=follow) or 0)

    def write(self, path: Path, data: bytes | str, *, durable: bool = False) -> None:
        """See Files.write; when it is on disk is the other side's business."""
        with self._talking(path.parent) as client:
            temporary = _complete(client, path, data)
            with _removed_on_failure(client, temporary):
                client.posix_rename(temporary, str(path))

    def create(self, path: Path, data: bytes | str) -> None:
        """See Files.create; OpenSSH's plain rename is a link(2) that replaces nothing."""
        with self._talking(path.parent) as client:
            temporary = _complete(client, path, data)
            with _removed_on_failure(client, temporary):
                try:
                    client.rename(temporary, str(path))
                except OSError as error:
                    if _mode(client, path, follow=False) is None:
                        raise
                    raise FileExistsError(f"{path} exists") from error

    def touch(self, path: Path) -> None:
        """See Files.touch."""
        with self._talking(path.parent) as client:
            try:
                with client.open(str(path), "wx") as file:
                    file.chmod(0o600)
            except OSError:
                if _mode(client, path, follow=False) is None:
                    raise

    def read(self, path: Path, *, limit: int = READ_LIMIT, within: Path | None = None) -> bytes:
        """See Files.read."""
        with self._regular(path, within or path.parent, limit=limit) as file:
            file.prefetch(min(file.stat().st_size or 0, limit))
            content = file.read(limit + 1)
            require_size(path, len(content), limit)
            return content

    def read_from(self, path: Path, offset: int, size: int, *, within: Path | None = None) -> bytes:
        """See Files.read_from."""
        with self._regular(path, within or path.parent) as file:
            file.seek(offset)
            return file.read(size)

    def size(self, path: Path, *, within: Path | None = None) -> int:
        """See Files.size."""
        with self._regular(path, within or path.parent) as file:
            return file.stat().st_size or 0

    def names(self, path: Path) -> Sequence[str]:
        """See Files.names."""
        with self._talking(path) as client:
            return client.listdir(str(path))

    def modified(self, path: Path) -> float:
        """See Files.modified."""
        with self._talking(path.parent) as client:
            return client.lstat(str(path)).st_mtime or 0.0

    def link(self, target: Path, path: Path) -> None:
        """See Files.link; a symbolic one, since SFTP has no other."""
        leads_to = posixpath.relpath(target, path.parent)
        with self._talking(path.parent) as client:
            with contextlib.suppress(OSError):
                if client.readlink(str(path)) == leads_to:
                    return
            with contextlib.suppress(FileNotFoundError):
                client.remove(str(path))
            client.symlink(leads_to, str(path))

    def symlink(self, target: str, path: Path) -> None:
        """See Files.symlink."""
        with self._talking(path.parent) as client:
            try:
                client.symlink(target, str(path))
            except OSError:
                if _mode(client, path, follow=False) is None:
                    raise

    def remove(self, path: Path) -> None:
        """See Files.remove."""
        with self._talking(path.parent) as client, contextlib.suppress(FileNotFoundError):
            client.remove(str(path))

    def remove_tree(self, path: Path) -> None:
        """See Files.remove_tree."""
        with self._talking(path.parent) as client:
            try:
                mode = _mode(client, path, follow=False)
            except OSError:
                return
            if mode is not None:
                _remove(client, str(path), is_directory=stat.S_ISDIR(mode))

    @contextlib.contextmanager
    def _regular(
        self, path: Path, within: Path, limit: int | None = None
    ) -> Iterator[paramiko.SFTPFile]:
        """Yield an open regular file; SFTP has no way to open one and follow no link by that.

        Should a FIFO take its place in between, the other side waits for a writer, and this side
        for no longer than for any answer.
        """
        with self._talking(path.parent) as client:
            try:
                place = within
                for part in path.relative_to(within).parts[:-1]:
                    place /= part
                    require_directory(path, client.lstat(str(place)).st_mode)
                client.listdir(str(path.parent))  # the other side may mount it by NFS
                found = client.lstat(str(path))
                require_regular(path, found.st_mode)
                if limit is not None:
                    require_size(path, found.st_size, limit)
                file = client.open(str(path), "r")
            except PermissionError:
                require_open_modes(path, within, lambda shut: client.lstat(str(shut)).st_mode)
                raise
            with file:
                require_regular(path, file.stat().st_mode)
                yield file

    @contextlib.contextmanager
    def _talking(self, place: Path) -> Iterator[paramiko.SFTPClient]:
        """Yield the client to one thread at a time; one whose channel is broken is thrown away.

        ``place`` is asked what is wrong with its file system when SFTP says "Failure".
        """
        import paramiko

        with self._lock:
            client = self._open()
            try:
                yield client
            except (paramiko.SSHException, EOFError, TimeoutError) as error:
                self._throw_away()
                raise SchedulerUnavailableError(self._shared.words(error)) from error
            except OSError as error:
                if isinstance(error, UnfitFileError):
                    raise
                if _lives(client):
                    raise _explained(client, error, place) from error
                self._throw_away()
                raise SchedulerUnavailableError(self._shared.words(error)) from error

    def _open(self) -> paramiko.SFTPClient:
        if self._client is not None and _lives(self._client):
            return self._client
        self._client = None
        self._client = open_sftp(self._shared)
        return self._client

    def _throw_away(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _lives(client: paramiko.SFTPClient) -> bool:
    channel = client.get_channel()
    if channel is None or channel.closed or channel.eof_received:
        return False
    return channel.get_transport().is_active()


def _mode(client: paramiko.SFTPClient, path: Path, *, follow: bool) -> int | None:
    """Return the type and mode of what is there, None when nothing is."""
    try:
        return (client.stat if follow else client.lstat)(str(path)).st_mode
    except FileNotFoundError:
        return None


def _complete(client: paramiko.SFTPClient, path: Path, data: bytes | str) -> str:
    """Write a file beside ``path`` and return its name; none is left that is not complete."""
    temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}"))
    file = client.open(temporary, "wx")
    with _removed_on_failure(client, temporary), file:
        file.chmod(0o600)
        file.write(data.encode() if isinstance(data, str) else data)
    return temporary


@contextlib.contextmanager
def _removed_on_failure(client: paramiko.SFTPClient, temporary: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not _lives(client):
            raise
        explained = _explained(client, error, Path(temporary).parent)  # before there is room again
        with contextlib.suppress(OSError):
            client.remove(temporary)
        raise explained from error


def _explained(client: paramiko.SFTPClient, error: OSError, place: Path) -> OSError:
    """Return an error that says why: SFTP (version 3) has no word for a disk that is full."""
    if error.errno is not None or isinstance(error, FileExistsError | UnfitFileError):
        return error
    try:
        space = statvfs(client, str(place))
    except (OSError, EOFError):
        return error
    if space.is_read_only:
        return OSError(errno.EROFS, os.strerror(errno.EROFS), str(place))
    if space.is_full:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
    return error


def _make_directory(client: paramiko.SFTPClient, path: Path, *, parents: bool) -> None:
    """Do as ``private_directory`` does here."""
    if _made(client, path, parents=parents) and not parents:
        return
    if not stat.S_ISDIR(_mode(client, path, follow=True) or 0):
        raise NotADirectoryError(f"{path} is not a directory")
    me = _own_uid(client, path)
    if parents:
        require_own_way(
            path,
            lambda place: _seen(client.lstat(str(place))),
            follow=lambda place: _seen(client.stat(str(place))),
            me=me,
        )
    seen = _seen((client.stat if parents else client.lstat)(str(path)))
    require_own(path, seen, me=me)
    if seen.is_open:
        require_nothing_planted(path, seen, is_empty=not client.listdir(str(path)))
        client.chmod(str(path), closed(path, seen))


def _made(client: paramiko.SFTPClient, path: Path, *, parents: bool) -> bool:
    """Make a directory with those above it; return whether it was missing."""
    try:
        client.mkdir(str(path), PRIVATE)
    except FileNotFoundError:
        if not parents or path.parent == path:
            raise
        _made(client, path.parent, parents=True)
        client.mkdir(str(path), PRIVATE)
    except OSError:  # SFTP has no word for a directory that is there
        if _mode(client, path, follow=False) is None:
            raise
        return False
    return True


def _own_uid(client: paramiko.SFTPClient, directory: Path) -> int:
    """Return the user that we are on the other side: who has what we make there."""
    probe = str(directory / f".whose-{secrets.token_hex(4)}")
    client.mkdir(probe, PRIVATE)
    try:
        return _seen(client.lstat(probe)).uid
    finally:
        client.rmdir(probe)


def _seen(attributes: paramiko.SFTPAttributes) -> Seen:
    uid = attributes.st_uid
    return Seen(attributes.st_mode or 0, -1 if uid is None else uid)


def _remove(client: paramiko.SFTPClient, path: str, *, is_directory: bool) -> None:
    """Remove what can be; a link is a file here (the modes are lstat's, also in a listing)."""
    with contextlib.suppress(OSError):
        if not is_directory:
            client.remove(path)
            return
        for entry in client.listdir_attr(path):
            below = posixpath.join(path, entry.filename)
            _remove(client, below, is_directory=stat.S_ISDIR(entry.st_mode or 0))
        client.rmdir(path)
