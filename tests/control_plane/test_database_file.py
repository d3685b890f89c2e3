"""The file of a gateway's database: it holds a key, and may lie where others look."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.settings import Settings


def test_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Also in a DAGSTER_HOME that others read, and one that an older release has made."""
    path = tmp_path / "gateway.db"
    path.touch()
    path.chmod(0o644)
    with contextlib.closing(Database(f"sqlite:///{path}")) as opened:
        Settings(opened).url_key()
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("gateway.db", "gateway.db-wal", "gateway.db-shm"), 0o600)
