"""Compute logs that agents and run workers upload, put where the webserver reads them."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dagster._core.storage.cloud_storage_compute_log_manager import CloudStorageComputeLogManager
from dagster._core.storage.compute_log_manager import ComputeIOType, ComputeLogManager
from dagster._core.storage.local_compute_log_manager import (
    IO_TYPE_EXTENSION,
    LocalComputeLogManager,
)

from hpc_agent.errors import ConfigError
from hpc_agent.inbound.log_key import LogKey


@dataclass(frozen=True, slots=True, kw_only=True)
class LogUpload:
    """Which log an upload is; a partial one holds all output so far and more will follow."""

    log_key: LogKey
    io_type: ComputeIOType
    partial: bool


class ComputeLogStore:
    """Writes whole logs over older, shorter ones; the webserver follows by byte offset."""

    def __init__(self, manager: ComputeLogManager) -> None:
        self._remote: CloudStorageComputeLogManager[Any] | None = None
        if isinstance(manager, CloudStorageComputeLogManager):
            self._local, self._remote = manager.local_manager, manager
        elif isinstance(manager, LocalComputeLogManager):
            self._local = manager
        else:
            raise ConfigError(
                f"compute_logs in dagster.yaml is {type(manager).__name__}, which takes no "
                "uploads: use LocalComputeLogManager or a cloud storage manager"
            )

    def stays_below(self, directory: Path) -> bool:
        """Tell whether all logs are kept in files below a directory, and nowhere else."""
        sample = self._local.get_captured_local_path(["run"], "out")
        return self._remote is None and Path(sample).is_relative_to(directory)

    def spool(self, upload: LogUpload) -> IO[bytes]:
        """Open a temporary file next to where the log belongs, for ``finish`` to put in place."""
        directory = self._path(upload).parent
        directory.mkdir(parents=True, exist_ok=True)
        with _alone_in(directory):
            prefix = _prefix(self._path(upload))
            file = tempfile.NamedTemporaryFile(dir=directory, prefix=prefix, delete=False)  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_EX)  # as long as somebody writes into it
        return file

    def finish(self, upload: LogUpload, file: IO[bytes]) -> None:
        """Put a complete upload in place, unless it was overtaken by one that has more."""
        path = self._path(upload)
        with _alone_in(path.parent):
            file.close()  # not before: what nobody writes into was left behind
            if self._is_overtaken(upload, path, Path(file.name).stat().st_size):
                Path(file.name).unlink()
                return
            os.replace(file.name, path)  # noqa: PTH105 the name comes from tempfile
            if not upload.partial:
                self._final_mark(upload).touch()
                _remove_cut_off(path)
        if self._remote is not None:
            self._remote.upload_to_cloud_storage(
                upload.log_key.parts, upload.io_type, partial=upload.partial
            )
        # stderr is sent last, by the node program as by CloudStorageComputeLogManager.
        if not upload.partial and upload.io_type is ComputeIOType.STDERR:
            self._complete(upload).touch()

    def _is_overtaken(self, upload: LogUpload, path: Path, size: int) -> bool:
        """Tell by what is stored, since another gateway may have taken what came before."""
        stored = path.stat().st_size if path.exists() else -1
        if not upload.partial:
            return self._final_mark(upload).exists() and stored > size
        if stored > size or self._final_mark(upload).exists() or self._complete(upload).exists():
            return True
        return self._remote is not None and self._remote.cloud_storage_has_logs(
            upload.log_key.parts, upload.io_type
        )

    def _complete(self, upload: LogUpload) -> Path:
        parts = upload.log_key.parts
        path: str = self._local.complete_artifact_path(parts)  # type: ignore[no-untyped-call]
        return Path(path)

    @staticmethod
    def discard(file: IO[bytes]) -> None:
        """Drop an upload that was cut off."""
        file.close()
        Path(file.name).unlink(missing_ok=True)

    def _path(self, upload: LogUpload, more: str = "") -> Path:
        ending = IO_TYPE_EXTENSION[upload.io_type] + more
        return Path(self._local.get_captured_local_path(upload.log_key.parts, ending))

    def _final_mark(self, upload: LogUpload) -> Path:
        """Return the empty file that says: this log has all that there will be."""
        return self._path(upload, ".final")


def _prefix(log: Path) -> str:
    return f".upload-{log.name}-"


def _remove_cut_off(log: Path) -> None:
    """Remove uploads of a log that gateways have not ended, since they were killed meanwhile."""
    for path in log.parent.glob(f"{glob.escape(_prefix(log))}*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep other threads, processes and hosts from the logs of a directory (flock(2), NFS too)."""
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
