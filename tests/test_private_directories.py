"""What the agent and the control plane keep is theirs alone, whoever was there first."""

from __future__ import annotations

import logging
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc_agent.cluster.work_directory import check_work_directory
from hpc_agent.control_plane.home import Home, prepare_home
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.tls import generated_certificate
from hpc_agent.errors import ConfigError, UnsafePathError
from hpc_agent.jobs.directory import NodeSpec, WorkDirectory
from hpc_agent.private_directories import own_directory, private_directory, weakness
from hpc_agent.private_files import prepare_database, require_private
from hpc_agent.relay.certificate import load_or_create
from hpc_agent.relay.spool import FILE_NAME, Spool
from hpc_agent.slurm.local_jobs import LocalJobs
from hpc_agent.store.database import Store
from hpc_agent.store.workers import WorkerKind
from tests.users import NOBODY, STRANGER, as_user, can_read, plant, sticky_place, umask


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory where everybody may make something."""
    with sticky_place() as directory:
        yield directory


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    """Nothing that is private is so because of a umask."""
    with umask(0):
        yield


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def open_things(directory: Path) -> list[str]:
    """Return what others could read below a directory, if they got there."""
    below = [path for path in directory.rglob("*") if not path.is_symlink()]
    return [str(path) for path in below if mode(path) & 0o077 and not path.is_socket()]


def test_directories_above_are_private_too(place: Path) -> None:
    """mkdir -p leaves them to the umask."""
    private_directory(place / "a" / "b" / "c")
    assert {mode(place / part) for part in ("a", "a/b", "a/b/c")} == {0o700}
    private_directory(place / "a" / "b" / "c")


def test_own_directory_is_shut_to_others_with_a_word(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that was made by hand, or by an earlier version."""
    (place / "home").mkdir(mode=0o755)
    (place / "home" / "agent.db").touch()
    with caplog.at_level(logging.WARNING):
        private_directory(place / "home")
    assert mode(place / "home") == 0o700
    assert "was open to others (mode 0755)" in caplog.text


def test_own_directory_in_which_others_may_have_written_is_refused(place: Path) -> None:
    """Unless nothing is in it: then it is shut."""
    (place / "home").mkdir(mode=0o777)
    plant(NOBODY, 'echo x > "$1/relay-secret"', place / "home")
    with pytest.raises(UnsafePathError, match="chmod 700"):
        private_directory(place / "home")
    (place / "home" / "relay-secret").unlink()
    private_directory(place / "home")
    assert mode(place / "home") == 0o700


@pytest.mark.parametrize("parents", [True, False])
def test_directory_of_somebody_else_is_refused(place: Path, parents: bool) -> None:
    """Who made it can read and replace what we would put there."""
    plant(NOBODY, 'mkdir -m 0777 "$1"', place / "home")
    with pytest.raises(UnsafePathError, match="belongs to another user"):
        private_directory(place / "home", parents=parents)


@pytest.mark.parametrize("below", ["", "work"])
def test_link_of_somebody_else_is_not_followed(place: Path, below: str) -> None:
    """Also not when it leads to a directory of ours."""
    (place / "ours").mkdir(mode=0o700)
    plant(NOBODY, 'ln -s "$1" "$2"', place / "ours", place / "home")
    with pytest.raises(UnsafePathError, match="belongs to another user"):
        private_directory(place / "home" / below)


def test_own_link_is_followed(place: Path) -> None:
    """Homes are on other disks than they seem; within a directory of ours there is none."""
    (place / "disk").mkdir(mode=0o700)
    (place / "home").symlink_to(place / "disk")
    private_directory(place / "home")
    with pytest.raises(UnsafePathError, match="not a directory"):
        private_directory(place / "home", parents=False)


def test_directory_below_one_of_somebody_else_is_refused(place: Path) -> None:
    """Its owner can put another one in its place."""
    plant(NOBODY, 'mkdir -m 0777 "$1"', place / "theirs")
    (place / "theirs").chmod(0o1777)
    with pytest.raises(UnsafePathError, match="who made it where everybody may make"):
        private_directory(place / "theirs" / "home")


def test_directory_that_everybody_may_replace_is_refused(place: Path) -> None:
    """Without the sticky bit anybody can rename what is in it."""
    place.chmod(0o777)
    with pytest.raises(UnsafePathError, match="chmod o-w"):
        private_directory(place / "home")


def test_weakness_names_who_else_can_replace_a_directory(place: Path) -> None:
    """A group may mean it so: this is for the doctor."""
    assert weakness(place / "home") is None
    (place / "group").mkdir(mode=0o770)
    assert "mode 0770" in str(weakness(place / "group" / "home"))
    plant(NOBODY, 'mkdir "$1"', place / "theirs")
    assert f"uid {NOBODY}" in str(weakness(place / "theirs" / "home"))


def test_other_user_is_stopped_in_the_same_way(place: Path) -> None:
    """The agent is not root: here it is nobody, and a stranger was first."""
    plant(STRANGER, 'mkdir -m 0777 "$1"', place / "home")
    code = (
        "import sys, pathlib; from hpc_agent.private_directories import private_directory\n"
        "private_directory(pathlib.Path(sys.argv[1]))"
    )
    if as_user(NOBODY, sys.executable, "-c", "import hpc_agent").returncode:
        pytest.skip("this Python cannot be run by other users")
    for name, words in (("home", "belongs to another user"), ("own", "")):
        done = as_user(NOBODY, sys.executable, "-c", code, str(place / name))
        assert words in done.stderr
        assert bool(done.returncode) is bool(words)


async def test_state_of_the_agent_is_private_whatever_the_umask(place: Path) -> None:
    """Also what SQLite makes beside its databases."""
    home = place / "home"
    store, spool = Store(home), Spool(home / FILE_NAME, max_bytes=1 << 20)
    await store.open()
    await spool.open()
    load_or_create(home, ["localhost"])
    LocalJobs(home / "local-jobs", slots=1, grace_seconds=1)
    assert (home / "agent.db-wal").exists()
    assert open_things(place) == []
    await store.close()
    await spool.close()


async def test_state_of_an_earlier_version_is_shut(place: Path) -> None:
    """Database, write-ahead log and directory."""
    home = place / "home"
    home.mkdir(mode=0o755)
    before = sqlite3.connect(home / "agent.db")
    before.execute("PRAGMA journal_mode=WAL")
    before.execute("CREATE TABLE secret (token)")
    before.commit()
    assert open_things(place)
    store = Store(home)
    await store.open()
    before.close()
    assert open_things(place) == []
    assert not can_read(NOBODY, home / "agent.db")
    await store.close()


async def test_home_of_somebody_else_is_refused_by_its_name(place: Path) -> None:
    """In the words of agent.yaml."""
    plant(NOBODY, 'mkdir -m 0777 "$1"', place / "home")
    with pytest.raises(ConfigError, match=r"home: .* belongs to another user"):
        await Store(place / "home").open()


@pytest.mark.parametrize("name", ["relay-key.pem", "agent.db"])
def test_file_that_somebody_else_made_is_not_taken(place: Path, name: str) -> None:
    """As one that was left in a home while that was open."""
    home = place / "home"
    home.mkdir(mode=0o777)
    plant(NOBODY, 'echo x > "$1/relay-key.pem"; cp "$1/relay-key.pem" "$1/agent.db"', home)
    home.chmod(0o700)
    with pytest.raises(UnsafePathError, match="belongs to another user"):
        if name == "agent.db":
            prepare_database(home / name)
        else:
            require_private(home / name)


def test_link_is_no_private_file(place: Path) -> None:
    """It leads to where others may write."""
    (place / "elsewhere").touch()
    (place / "agent.db").symlink_to(place / "elsewhere")
    with pytest.raises(UnsafePathError, match="not a regular file"):
        prepare_database(place / "agent.db")


def test_home_of_the_control_plane_that_was_open_is_shut(place: Path) -> None:
    """Its database holds the key of upload addresses, and dagster.yaml a password."""
    home = Home(place / "home")
    home.root.mkdir(mode=0o755)
    home.dagster_yaml.write_text("storage: {}\n")
    sqlite3.connect(home.root / "gateway.db").close()
    prepare_home(home)
    Database(home.database_url).close()
    generated_certificate(home.tls, "localhost")
    assert open_things(place) == []
    secrets = [home.dagster_yaml, home.root / "gateway.db", home.tls / "ca.key"]
    assert [path for path in secrets if can_read(NOBODY, path)] == []
    home.root.chmod(0o755)  # as somebody might do again
    home.tls.chmod(0o755)
    assert [path for path in secrets if can_read(NOBODY, path)] == []


def test_home_of_the_control_plane_is_not_taken_from_somebody_else(place: Path) -> None:
    """Nor with files of theirs in it."""
    plant(NOBODY, 'mkdir -m 0777 "$1"; echo storage: {} > "$1/dagster.yaml"', place / "home")
    with pytest.raises(UnsafePathError, match="belongs to another user"):
        prepare_home(Home(place / "home"))


def a_spec(key: str) -> NodeSpec:
    return NodeSpec(
        key=key,
        kind=WorkerKind.RUN_WORKER,
        argv=["true"],
        environment={},
        working_directory=None,
        grace_seconds=1,
    )


def test_work_directory_of_somebody_else_is_refused_by_its_name(place: Path) -> None:
    """Its owner could replace what jobs run."""
    plant(NOBODY, 'mkdir -m 0777 "$1" "$1/jobs" "$1/lib"', place / "work")
    with pytest.raises(ConfigError, match=r"work_dir: .* belongs to another user"):
        check_work_directory(WorkDirectory(place / "work"))


@pytest.mark.parametrize("below", ["jobs", "lib"])
def test_part_of_the_work_directory_of_somebody_else_is_refused(place: Path, below: str) -> None:
    """As one that was planted while the work directory was open."""
    (place / "work").mkdir(mode=0o777)
    plant(NOBODY, 'mkdir -m 0777 "$1"', place / "work" / below)
    (place / "work").chmod(0o700)
    with pytest.raises(UnsafePathError, match=f"{below} belongs to another user"):
        WorkDirectory(place / "work").make()


def test_job_directory_that_was_planted_is_not_used(place: Path) -> None:
    """With a program of somebody's own in it, and a relay that is not ours."""
    work, key = WorkDirectory(place / "work"), "run-0123456789abcdef0123"
    work.make()
    program = place / "program"
    program.write_text("ours")
    work.jobs.chmod(0o1777)
    work.path.chmod(0o711)
    plant(
        NOBODY,
        'mkdir -m 0777 "$1"; echo theirs > "$1/node.pyz"; echo theirs > "$1/relay.json"',
        work.of(key),
    )
    with pytest.raises(UnsafePathError, match="belongs to another user"):
        work.prepare(a_spec(key), token="t", program=program)
    assert not (work.of(key) / "token").exists()


def test_job_directories_are_private_whatever_the_umask(place: Path) -> None:
    """And may be prepared again."""
    work = WorkDirectory(place / "work")
    work.make()
    program = work.lib / "program"
    work.files.write(program, "ours")
    for _ in range(2):
        work.prepare(a_spec("run-0123456789abcdef0123"), token="t", program=program)
    assert open_things(place) == []


@pytest.mark.parametrize("make", [own_directory, private_directory])
def test_directory_is_not_made_for_all_to_write(place: Path, make: Callable[[Path], None]) -> None:
    """As ~/.config/systemd/user, from which commands are started."""
    make(place / "config" / "systemd")
    assert mode(place / "config") == mode(place / "config" / "systemd") == 0o700
    (place / "config" / "systemd").chmod(0o777)
    (place / "config" / "systemd" / "unit").touch()
    with pytest.raises(UnsafePathError, match="chmod"):
        make(place / "config" / "systemd")
