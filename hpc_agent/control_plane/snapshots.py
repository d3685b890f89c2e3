"""Definition snapshots, named by the SHA-1 of their content, as in the agent API.

One gateway keeps them in files. Gateways over one PostgreSQL keep them there, since each must
answer from what an agent gave to any of them.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from pathlib import Path
from typing import Protocol

from dagster_cloud.api.dagster_cloud_api import FileFormat, StoredSnapshot

from hpc_agent.errors import ControlPlaneRefusedError
from hpc_agent.inbound.inflate import inflate
from hpc_agent.private_directories import private_directory
from hpc_agent.private_files import write_private

MAX_SNAPSHOT_BYTES = 256 << 20
"""Unpacked; the largest location of which we know has 40 MB."""

_SHA1 = re.compile(r"[0-9a-f]{40}")


class Blobs(Protocol):
    """Where compressed snapshots lie; what is there never changes."""

    def has(self, sha1: str) -> bool: ...

    def read(self, sha1: str) -> bytes:
        """Raises FileNotFoundError."""
        ...

    def write(self, sha1: str, compressed: bytes) -> None: ...


class FileBlobs:
    """Files ``ab/SHA1.json.zz``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def has(self, sha1: str) -> bool:
        return self._path(sha1).exists()

    def read(self, sha1: str) -> bytes:
        return self._path(sha1).read_bytes()

    def write(self, sha1: str, compressed: bytes) -> None:
        path = self._path(sha1)
        private_directory(path.parent, parents=False)
        write_private(path, compressed, durable=True)

    def _path(self, sha1: str) -> Path:
        return self._directory / sha1[:2] / f"{sha1}.json.zz"


class SnapshotStore:
    """Snapshots by the SHA-1 of their uncompressed JSON."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def has(self, sha1: str) -> bool:
        return self._blobs.has(_checked(sha1))

    def read(self, sha1: str) -> str:
        """Return a snapshot's JSON. Raises FileNotFoundError."""
        return zlib.decompress(self._blobs.read(_checked(sha1))).decode()

    def add(self, content: str) -> StoredSnapshot:
        """Store a snapshot that came inside a larger message."""
        data = content.encode()
        sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if not self.has(sha1):
            self._blobs.write(sha1, zlib.compress(data))
        return stored_snapshot(sha1, len(data))

    def add_upload(self, sha1: str, compressed: bytes) -> None:
        """Store zlib-compressed JSON. Raises ControlPlaneRefusedError when it is damaged."""
        data = inflate(compressed, most_bytes=MAX_SNAPSHOT_BYTES)
        actual = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if actual != sha1:
            raise ControlPlaneRefusedError(
                f"snapshot upload is damaged: announced as SHA-1 {sha1}, arrived as {actual}"
            )
        self._blobs.write(sha1, compressed)


def _checked(sha1: str) -> str:
    if not _SHA1.fullmatch(sha1):
        raise ControlPlaneRefusedError(f"not a SHA-1: {sha1[:60]!r}")
    return sha1


def stored_snapshot(sha1: str, size: int) -> StoredSnapshot:
    return StoredSnapshot(
        sha1=sha1, format=FileFormat.GZIPPED_JSON, uri=f"snapshot:{sha1}", decompressed_size=size
    )
