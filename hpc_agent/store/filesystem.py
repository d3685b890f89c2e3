"""Which kind of file system a path is on, from /proc/self/mounts."""

from __future__ import annotations

import codecs
from pathlib import Path

from hpc_agent.errors import StoreError

# SQLite's WAL needs shared memory between processes and exact file locks (sqlite.org/wal.html,
# sqlite.org/howtocorrupt.html); none of these gives both on all clients.
NETWORK_TYPES = frozenset(
    {
        "nfs",
        "nfs4",
        "lustre",
        "gpfs",
        "cifs",
        "smb3",
        "ceph",
        "beegfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "9p",
        "afs",
        "panfs",
        "pvfs2",
        "wekafs",
        "fhgfs",
    }
)


def filesystem_type(path: Path, mounts: str) -> str:
    """Return the type of the file system that holds ``path``; ``mounts`` as in proc_mounts(5)."""
    resolved = path.resolve()
    best, kind = -1, "unknown"
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount_point = Path(codecs.decode(fields[1], "unicode_escape"))
        depth = len(mount_point.parts)
        if resolved.is_relative_to(mount_point) and depth >= best:
            best, kind = depth, fields[2]
    return kind


def filesystem_type_of(path: Path) -> str:
    """Return the type of the file system that holds ``path`` on this machine."""
    return filesystem_type(path, Path("/proc/self/mounts").read_text())


def is_network(path: Path) -> bool:
    """Whether ``path`` is on a file system that other hosts share."""
    return filesystem_type_of(path) in NETWORK_TYPES


def refuse_network_filesystem(home: Path) -> None:
    """Raise StoreError when the state database would lie on a shared file system."""
    kind = filesystem_type_of(home)
    if kind in NETWORK_TYPES:
        raise StoreError(
            f"home: {home} is on {kind}, where SQLite databases get corrupted. Set `home` in "
            "agent.yaml to a directory on a local disk of this machine, for example under /var/lib "
            "or /var/tmp."
        )
