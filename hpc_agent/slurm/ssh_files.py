"""Files of a machine of the cluster by SFTP, on the connection that its commands use; blocking.

Source: paramiko's SFTPClient, which is no place for two threads at once; the extension
posix-rename@openssh.com (PROTOCOL of OpenSSH) replaces files at once.
"""

from __future__ import annotations

import contextlib
import posixpath
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.slurm.ssh_shared import SharedConnection

if TYPE_CHECKING:
    import paramiko

_ANSWER_SECONDS = 30.0


class SftpFiles:
    """The files of a user on the other side; see Files."""

    def __init__(self, shared: SharedConnection) -> None:
        self._shared = shared
        self._client: paramiko.SFTPClient | None = None
        self._lock = threading.Lock()

    def make_directory(self, path: Path) -> None:
        """See Files.make_directory."""
        with self._talking() as client:
            _make_directory(client, path)

    def write(self, path: Path, data: bytes | str, *, durable: bool = False) -> None:
        """See Files.write; when it is on disk is the other side's business."""
        content = data.encode() if isinstance(data, str) else data
        temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}"))
        with self._talking() as client:
            with client.open(temporary, "wx") as file:
                file.chmod(0o600)
                file.write(content)
            client.posix_rename(temporary, str(path))

    def touch(self, path: Path) -> None:
        """See Files.touch."""
        with self._talking() as client, client.open(str(path), "a") as file:
            file.chmod(0o600)

    def read(self, path: Path) -> bytes:
        """See Files.read."""
        with self._talking() as client:
            client.listdir(str(path.parent))  # the other side may mount it by NFS
            with client.open(str(path), "r") as file:
                file.prefetch()
                return file.read()

    def read_from(self, path: Path, offset: int, size: int) -> bytes:
        """See Files.read_from."""
        with self._talking() as client, client.open(str(path), "r") as file:
            file.seek(offset)
            return file.read(size)

    def names(self, path: Path) -> Sequence[str]:
        """See Files.names."""
        with self._talking() as client:
            return client.listdir(str(path))

    def link(self, target: Path, path: Path) -> None:
        """See Files.link; a symbolic one, since SFTP has no other."""
        self.symlink(posixpath.relpath(target, path.parent), path)

    def symlink(self, target: str, path: Path) -> None:
        """See Files.symlink."""
        with self._talking() as client:
            try:
                client.symlink(target, str(path))
            except OSError:
                client.lstat(str(path))  # fails unless one is there

    def remove(self, path: Path) -> None:
        """See Files.remove."""
        with self._talking() as client, contextlib.suppress(FileNotFoundError):
            client.remove(str(path))

    def remove_tree(self, path: Path) -> None:
        """See Files.remove_tree."""
        with self._talking() as client:
            _remove_tree(client, str(path))

    @contextlib.contextmanager
    def _talking(self) -> Iterator[paramiko.SFTPClient]:
        """Yield the client to one thread at a time; one whose channel is broken is thrown away."""
        import paramiko

        with self._lock:
            client = self._open()
            try:
                yield client
            except (paramiko.SSHException, EOFError, TimeoutError) as error:
                self._throw_away()
                raise SchedulerUnavailableError(self._shared.words(error)) from error
            except OSError as error:
                if _lives(client):
                    raise
                self._throw_away()
                raise SchedulerUnavailableError(self._shared.words(error)) from error

    def _open(self) -> paramiko.SFTPClient:
        import paramiko

        if self._client is not None and _lives(self._client):
            return self._client
        self._client = None
        try:
            channel = self._shared.open_session()
            channel.settimeout(_ANSWER_SECONDS)
        except (paramiko.SSHException, OSError) as error:
            raise SchedulerUnavailableError(self._shared.words(error)) from error
        try:
            channel.invoke_subsystem("sftp")
            self._client = paramiko.SFTPClient(channel)
        except (paramiko.SSHException, EOFError, OSError) as error:
            channel.close()
            raise SchedulerUnavailableError(
                f"{self._shared.target.host} gives no access to files by SFTP ({error}): its sshd "
                "needs `Subsystem sftp`, or mount work_dir here with scheduler.ssh.files: mounted"
            ) from error
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


def _make_directory(client: paramiko.SFTPClient, path: Path) -> None:
    try:
        client.mkdir(str(path), 0o700)
    except FileNotFoundError:
        _make_directory(client, path.parent)
        client.mkdir(str(path), 0o700)
    except OSError:  # SFTP has no word for a directory that is there
        mode = client.stat(str(path)).st_mode
        if mode is None or not stat.S_ISDIR(mode):
            raise


def _remove_tree(client: paramiko.SFTPClient, path: str) -> None:
    try:
        entries = client.listdir_attr(path)
    except FileNotFoundError:
        return
    for entry in entries:
        below = posixpath.join(path, entry.filename)
        if stat.S_ISDIR(entry.st_mode or 0):
            _remove_tree(client, below)
        else:
            with contextlib.suppress(PermissionError, FileNotFoundError):
                client.remove(below)
    with contextlib.suppress(OSError):
        client.rmdir(path)
