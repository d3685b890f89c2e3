"""Whether the shared directories will do, as far as that can be seen from the login node."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_agent.errors import ConfigError, UnsafePathError
from hpc_agent.files import Files, LocalFiles
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.disk_trouble import files_unavailable, is_passing
from hpc_agent.store.filesystem import filesystem_type_of, is_network

log = logging.getLogger(__name__)


def check_work_directory(work: WorkDirectory, *, warn_if_local: bool = True) -> None:
    """Make the work directory and warn when compute nodes will hardly see it.

    Raises ConfigError when it cannot be written or is not ours alone, FilesUnavailableError when it
    can be written another time.
    """
    with _explained("work_dir", work.path):
        work.make()
        probe = work.path / f".probe-{secrets.token_hex(4)}"
        work.files.write(probe, "")
        work.files.remove(probe)
    if not isinstance(work.files, LocalFiles):
        return  # where it is, is seen on its own machine only
    if warn_if_local and not is_network(work.path):
        log.warning(
            "work_dir: %s is on %s, a file system of this machine alone: jobs on other nodes will "
            "not find their directories. Fine on a single machine; on a cluster set work_dir to a "
            "directory that every compute node sees.",
            work.path,
            filesystem_type_of(work.path),
        )


def make_artifacts_directory(path: Path, files: Files) -> None:
    """Make the directory of artifacts, ours alone: what is found there is unpickled by runs.

    Raises what check_work_directory raises.
    """
    with _explained("artifacts.directory", path):
        files.make_directory(path)


@contextmanager
def _explained(key: str, path: Path) -> Iterator[None]:
    """Say which key of agent.yaml names a directory that will not do."""
    try:
        yield
    except UnsafePathError as error:
        raise UnsafePathError(f"{key}: {error}") from None
    except OSError as error:
        if is_passing(error):
            raise files_unavailable(path, error) from error
        raise ConfigError(f"{key}: {path}: {error.strerror or error}") from None
