"""A backup is whole while others write, and comes back as it was."""

from __future__ import annotations

import asyncio
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.backup import back_up, restore
from hpc_agent.errors import HpcAgentError
from hpc_agent.store import meta
from hpc_agent.store.database import Store, read_only


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    (path / "tls").mkdir(parents=True)
    (path / "tls" / "key.pem").write_text("key")
    (path / "tls" / "key.pem").chmod(0o600)
    (path / "link").symlink_to("/etc/passwd")
    return path


@pytest.fixture
def busy(home: Path) -> Iterator[Path]:
    """A database to which two rows are added together, again and again."""
    path = home / "busy.db"
    stop = threading.Event()
    started = threading.Event()

    def write() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS rows (value INTEGER)")
        number = 0
        while not stop.is_set():
            number += 1
            connection.execute("BEGIN")
            connection.execute("INSERT INTO rows VALUES (?)", [number])
            connection.execute("INSERT INTO rows VALUES (?)", [-number])
            connection.execute("COMMIT")
            if number > 100:
                started.set()
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    assert started.wait(30)
    yield path
    stop.set()
    thread.join()


def test_database_in_use_is_copied_as_of_one_moment(home: Path, busy: Path, tmp_path: Path) -> None:
    """Half a transaction is in no copy, nor is a file that belongs to the open database."""
    archive, back = tmp_path / "b.tar.gz", tmp_path / "back"
    assert back_up(home, archive, kind="agent") == 2
    assert archive.stat().st_mode & 0o077 == 0
    restore(archive, back, kind="agent")
    assert sorted(path.name for path in back.rglob("*")) == ["busy.db", "key.pem", "tls"]
    with sqlite3.connect(back / busy.name) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        count, total = copy.execute("SELECT count(*), sum(value) FROM rows").fetchone()
    copy.close()
    assert count >= 200
    assert total == 0
    assert (back / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600


def test_agent_goes_on_with_what_is_restored(tmp_path: Path) -> None:
    """The same agent id, in the newest schema."""
    home, back = tmp_path / "home", tmp_path / "back"

    async def identity_in(path: Path) -> str:
        store = Store(path)
        await store.open()
        found = await store.run(meta.identity)
        await store.close()
        return found.agent_id

    before = asyncio.run(identity_in(home))
    back_up(home, tmp_path / "b.tar.gz", kind="agent")
    restore(tmp_path / "b.tar.gz", back, kind="agent")
    assert asyncio.run(identity_in(back)) == before
    assert meta.get(read_only(back), "agent_id") == before


def test_restore_overwrites_nothing(home: Path, tmp_path: Path) -> None:
    """Nor does it take what is no backup, or one of something else."""
    archive = tmp_path / "b.tar.gz"
    back_up(home, archive, kind="agent")
    with pytest.raises(FileExistsError):
        back_up(home, archive, kind="agent")
    with pytest.raises(HpcAgentError, match="is not empty"):
        restore(archive, home, kind="agent")
    with pytest.raises(HpcAgentError, match="is a backup of: agent, not of: control-plane"):
        restore(archive, tmp_path / "new", kind="control-plane")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(HpcAgentError, match="text: "):
        restore(tmp_path / "text", tmp_path / "new", kind="agent")
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as other:
        other.add(home / "tls" / "key.pem", "key.pem")
    with pytest.raises(HpcAgentError, match="is no backup of hpc-agent"):
        restore(tmp_path / "other.tar.gz", tmp_path / "new", kind="agent")


def test_archive_that_leads_out_of_its_directory_is_refused(home: Path, tmp_path: Path) -> None:
    """It may come from anywhere."""
    archive, bad = tmp_path / "b.tar.gz", tmp_path / "bad.tar.gz"
    back_up(home, archive, kind="agent")
    with tarfile.open(archive) as good, tarfile.open(bad, "w:gz") as worse:
        for member in good:
            worse.addfile(member, good.extractfile(member))
        worse.add(home / "tls" / "key.pem", "../escaped")
    with pytest.raises(HpcAgentError, match="outside"):
        restore(bad, tmp_path / "new", kind="agent")
    assert not (tmp_path / "escaped").exists()


def test_archive_inside_the_directory_is_not_in_itself(home: Path) -> None:
    """Nor is what it is made of."""
    archive = home / "b.tar.gz"
    (home / "other.gz").write_text("somebody's")
    assert back_up(home, archive, kind="agent") == 2
    assert [path.name for path in home.iterdir() if path.name.startswith("tmp")] == []


def test_half_of_a_backup_is_none(home: Path, tmp_path: Path) -> None:
    """What cannot be copied is told, and no archive is left that lacks it."""
    (home / "broken.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    archive = tmp_path / "b.tar.gz"
    with pytest.raises(HpcAgentError, match=r"broken\.db"):
        back_up(home, archive, kind="agent")
    assert not archive.exists()
