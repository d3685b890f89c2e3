"""A directory with its SQLite databases in one archive, taken while they are in use."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from hpc_agent import __version__
from hpc_agent.errors import HpcAgentError
from hpc_agent.private_directories import private_directory

_MANIFEST = "hpc-agent-backup.json"
_MAGIC = b"SQLite format 3\0"
# What belongs to an open database: its copy is whole without them.
_BESIDE_DATABASES = ("-wal", "-shm", "-journal")
_BUSY_SECONDS = 30.0
_LONGEST_MANIFEST = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an archive is of, ``agent`` or ``control-plane``; seconds since the epoch."""

    kind: str
    version: str
    made_at: float


def back_up(
    home: Path, archive: Path, *, kind: str, leaves_out: Callable[[Path], bool] = lambda _: False
) -> int:
    """Write an archive of a directory and return how many files are in it.

    Each database is copied as of one moment by SQLite itself, whoever writes to it; other files
    as they are. ``leaves_out`` gets paths relative to ``home``. Raises HpcAgentError, and
    FileExistsError when there is an archive of this name.
    """
    if not home.is_dir():
        raise HpcAgentError(f"{home} is no directory: there is nothing to back up")
    manifest = Manifest(kind=kind, version=__version__, made_at=time.time())
    with archive.open("xb") as file:
        archive.chmod(0o600)
        try:
            return _write(file, home, archive.absolute(), manifest, leaves_out)
        except BaseException:
            archive.unlink()  # half of a backup is none
            raise


def _write(
    file: IO[bytes],
    home: Path,
    archive: Path,
    manifest: Manifest,
    leaves_out: Callable[[Path], bool],
) -> int:
    count = 0
    with (
        tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as tar,
        tempfile.TemporaryDirectory(dir=archive.parent) as scratch,
    ):
        _add_text(tar, _MANIFEST, json.dumps(asdict(manifest), indent=1))
        # The archive may be written into the directory that is backed up.
        ours = {archive, Path(scratch)}
        for path in _files(home):
            name = path.relative_to(home)
            if leaves_out(name) or not ours.isdisjoint([path.absolute(), *path.absolute().parents]):
                continue
            with contextlib.suppress(FileNotFoundError):  # it went while we walked
                _add(tar, path, name, Path(scratch))
                count += 1
    return count


def restore(archive: Path, home: Path, *, kind: str) -> Manifest:
    """Put what is in an archive where nothing is yet, and return what it says of itself.

    Raises HpcAgentError when there is something, or the archive is of another kind, or none.
    """
    if home.exists() and any(home.iterdir()):
        raise HpcAgentError(f"{home} is not empty: move it away, or name another directory")
    try:
        with tarfile.open(archive, "r:gz") as tar:
            manifest = _manifest_in(tar, archive)
            if manifest.kind != kind:
                raise HpcAgentError(f"{archive} is a backup of: {manifest.kind}, not of: {kind}")
            private_directory(home)
            # Members that lead out of the directory are refused: docs.python.org, PEP 706.
            tar.extractall(home, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise HpcAgentError(f"{archive}: {error}") from error
    (home / _MANIFEST).unlink(missing_ok=True)
    return manifest


def _manifest_in(tar: tarfile.TarFile, archive: Path) -> Manifest:
    try:
        member = tar.extractfile(_MANIFEST)
        return Manifest(**json.loads(member.read(_LONGEST_MANIFEST) if member else ""))
    except (KeyError, ValueError, TypeError):
        raise HpcAgentError(f"{archive} is no backup of hpc-agent") from None


def _files(home: Path) -> Iterator[Path]:
    for path in sorted(home.rglob("*")):
        if path.name.endswith(_BESIDE_DATABASES):
            continue
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _add(tar: tarfile.TarFile, path: Path, name: Path, scratch: Path) -> None:
    with path.open("rb") as file:
        is_database = file.read(len(_MAGIC)) == _MAGIC
    if not is_database:
        tar.add(path, str(name), recursive=False)
        return
    copy = scratch / "copy.db"
    _copy_database(path, copy)
    copy.chmod(path.stat().st_mode & 0o777)
    tar.add(copy, str(name), recursive=False)
    copy.unlink()


def _copy_database(path: Path, copy: Path) -> None:
    """https://www.sqlite.org/backup.html: the copy is that of one transaction."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with (
            contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise HpcAgentError(f"{path}: {error}") from error


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    tar.addfile(entry, io.BytesIO(data))
