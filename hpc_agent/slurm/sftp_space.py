"""How full a file system is behind SFTP: the extension statvfs@openssh.com (PROTOCOL of OpenSSH).

paramiko has no method for it, so this sends the request as paramiko's own methods do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import paramiko

# Less than one request of SFTP carries: what did not fit may be gone again when this is asked.
_FULL_BYTES = 32 << 10
_READ_ONLY = 0x1  # SSH_FXE_STATVFS_ST_RDONLY


@dataclass(frozen=True, slots=True)
class Space:
    """What is of interest of statvfs(3)."""

    is_read_only: bool
    is_full: bool


def statvfs(client: paramiko.SFTPClient, path: str) -> Space:
    """Return how a file system stands. Raises OSError, also where the server does not say."""
    from paramiko.sftp import CMD_EXTENDED, CMD_EXTENDED_REPLY

    talk: Any = client
    kind, message = talk._request(CMD_EXTENDED, "statvfs@openssh.com", path)
    if kind != CMD_EXTENDED_REPLY:
        raise OSError(f"no answer to statvfs@openssh.com: {kind}")
    _, _, _, _, blocks_left, files, _, files_left, _, flags, _ = [
        message.get_int64() for _ in range(11)
    ]
    is_out_of_files = files > 0 and files_left == 0
    return Space(is_read_only=bool(flags & _READ_ONLY), is_full=blocks_left == 0 or is_out_of_files)
