"""Compute logs that agents and run workers upload, put where the webserver reads them."""

from __future__ import annotations

import os
import tempfile
import threading
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
        self._guard = threading.Lock()
        self._final: dict[LogKey, set[ComputeIOType]] = {}

    def stays_below(self, directory: Path) -> bool:
        """Tell whether all logs are kept in files below a directory, and nowhere else."""
        sample = self._local.get_captured_local_path(["run"], "out")
        return self._remote is None and Path(sample).is_relative_to(directory)

    def spool(self, upload: LogUpload) -> IO[bytes]:
        """Open a temporary file next to where the log belongs, for ``finish`` to put in place."""
        directory = self._path(upload).parent
        directory.mkdir(parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=directory, prefix=".upload-", delete=False)

    def finish(self, upload: LogUpload, file: IO[bytes]) -> None:
        """Put a complete upload in place."""
        file.close()
        path = self._path(upload)
        complete = Path(
            self._local.complete_artifact_path(  # type: ignore[no-untyped-call]
                upload.log_key.parts
            )
        )
        with self._guard:
            final = self._final.get(upload.log_key, set())
            if upload.partial and (upload.io_type in final or complete.exists()):
                Path(file.name).unlink()  # tried again by its sender, and overtaken meanwhile
                return
            os.replace(file.name, path)  # noqa: PTH105 the name comes from tempfile
            if not upload.partial:
                final = self._final.setdefault(upload.log_key, set())
                final.add(upload.io_type)
            is_complete = final >= {ComputeIOType.STDOUT, ComputeIOType.STDERR}
        if self._remote is not None:
            self._remote.upload_to_cloud_storage(
                upload.log_key.parts, upload.io_type, partial=upload.partial
            )
        # stderr is sent last (CloudStorageComputeLogManager._on_capture_complete), so that it also
        # ends a log whose stdout came to a process of ours that has been replaced since.
        if is_complete or (not upload.partial and upload.io_type is ComputeIOType.STDERR):
            complete.touch()
            with self._guard:
                self._final.pop(upload.log_key, None)

    @staticmethod
    def discard(file: IO[bytes]) -> None:
        """Drop an upload that was cut off."""
        file.close()
        Path(file.name).unlink(missing_ok=True)

    def _path(self, upload: LogUpload) -> Path:
        ending = IO_TYPE_EXTENSION[upload.io_type]
        return Path(self._local.get_captured_local_path(upload.log_key.parts, ending))
