"""What both kinds of files do: those that are mounted here, and those behind a real sshd."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpc_agent.errors import SchedulerUnavailableError, UnsafePathError
from hpc_agent.files import Files, LocalFiles
from hpc_agent.hostile_files import UnfitFileError, require_open_modes
from hpc_agent.slurm.ssh_files import SftpFiles
from hpc_agent.slurm.ssh_shared import SharedConnection
from tests.no_links import is_supported, run_without_links
from tests.ssh import Sshd, running_sshd
from tests.users import NOBODY, plant, sticky_place

HOSTILE = "a name $(x) 'q' \"d\" ; %j ü\n.txt"


@pytest.fixture
def sftp(sshd: Sshd) -> Iterator[SftpFiles]:
    shared = SharedConnection(sshd.target)
    yield SftpFiles(shared)
    shared.close()


@pytest.fixture(params=["local", "sftp"])
def files(request: pytest.FixtureRequest) -> Files:
    """Each kind in turn."""
    if request.param == "local":
        return LocalFiles()
    found: Files = request.getfixturevalue("sftp")
    return found


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_directories_are_made_with_those_above_and_private(files: Files, tmp_path: Path) -> None:
    """One that is there is shut to others; a file in the way is an error."""
    files.make_directory(tmp_path / "a" / HOSTILE)
    assert _mode(tmp_path / "a" / HOSTILE) == 0o700
    (tmp_path / "a").chmod(0o755)
    files.make_directory(tmp_path / "a")
    assert _mode(tmp_path / "a") == 0o700
    (tmp_path / "file").touch()
    with pytest.raises((OSError, UnsafePathError), match=r".+"):
        files.make_directory(tmp_path / "file")


@pytest.mark.parametrize("parents", [True, False])
def test_directory_of_somebody_else_is_not_taken(files: Files, parents: bool) -> None:
    """Who has made it can replace what we would put there."""
    with sticky_place() as place:
        plant(NOBODY, 'mkdir -m 0777 "$1"', place / "work")
        with pytest.raises(UnsafePathError, match="belongs to another user"):
            files.make_directory(place / "work", parents=parents)


def test_link_of_somebody_else_is_not_followed_to_a_directory(files: Files) -> None:
    """Also not to one of ours."""
    with sticky_place() as place:
        (place / "ours").mkdir(mode=0o700)
        plant(NOBODY, 'ln -s "$1" "$2"', place / "ours", place / "work")
        with pytest.raises(UnsafePathError, match="belongs to another user"):
            files.make_directory(place / "work")


def test_directory_into_which_others_may_have_put_something_is_not_taken(files: Files) -> None:
    """An empty one is shut."""
    with sticky_place() as place:
        (place / "work").mkdir()
        (place / "work").chmod(0o777)
        files.make_directory(place / "work")
        assert _mode(place / "work") == 0o700
        (place / "work").chmod(0o777)
        plant(NOBODY, 'mkdir "$1"', place / "work" / "jobs")
        with pytest.raises(UnsafePathError, match="chmod 700"):
            files.make_directory(place / "work")


def test_what_is_written_is_read_and_private(files: Files, tmp_path: Path) -> None:
    """Replaced at once; nothing else is left beside it."""
    path = tmp_path / HOSTILE
    files.write(path, "old")
    files.write(path, b"\x00new\xff" * 100_000, durable=True)
    assert files.read(path) == path.read_bytes() == b"\x00new\xff" * 100_000
    assert _mode(path) == 0o600
    assert list(files.names(tmp_path)) == [HOSTILE]


def test_file_that_grows_is_read_in_parts(files: Files, tmp_path: Path) -> None:
    """From where the last part ended."""
    path = tmp_path / "log"
    path.write_text("one")
    assert files.read_from(path, 0, 100) == b"one"
    assert files.read_from(path, 3, 100) == b""
    path.write_text("one two")
    assert files.read_from(path, 3, 2) == b" t"
    assert files.size(path) == 7


@pytest.mark.parametrize(
    "do",
    [
        lambda files, path: files.read(path),
        lambda files, path: files.read_from(path, 0, 1),
        lambda files, path: files.size(path),
        lambda files, path: files.write(path / "below", "x"),
        lambda files, path: files.touch(path / "below"),
        lambda files, path: files.names(path),
    ],
)
def test_what_is_absent_is_not_found(
    files: Files, tmp_path: Path, do: Callable[[Files, Path], object]
) -> None:
    """By the error that open(2) gives."""
    with pytest.raises(FileNotFoundError):
        do(files, tmp_path / "absent")


def test_links_lead_where_they_should_and_may_be_made_again(files: Files, tmp_path: Path) -> None:
    """A job's directory is prepared anew after a crash."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "job").mkdir()
    (tmp_path / "lib" / "program").write_text("code")
    for _ in range(2):
        files.link(tmp_path / "lib" / "program", tmp_path / "job" / "program")
        files.symlink("../lib", tmp_path / "job" / "up")
    assert (tmp_path / "job" / "program").read_text() == "code"
    assert (tmp_path / "job" / "up" / "program").read_text() == "code"


def test_link_to_a_program_of_before_leads_to_the_new_one(files: Files, tmp_path: Path) -> None:
    """A directory that an earlier version prepared gets the specification of this one."""
    for name in ("old", "new one"):
        (tmp_path / name).write_text(name)
        files.link(tmp_path / name, tmp_path / "program")
        assert (tmp_path / "program").read_text() == name


def test_files_and_trees_are_removed_and_their_absence_is_no_error(
    files: Files, tmp_path: Path
) -> None:
    """What a link leads to stays."""
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below" / HOSTILE).touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tree / "link").symlink_to(tmp_path / "kept")
    files.touch(tree / "touched")
    files.touch(tree / "touched")
    assert _mode(tree / "touched") == 0o600
    for _ in range(2):
        files.remove(tree / "touched")
        files.remove_tree(tree / "below")
    assert list(files.names(tree)) == ["link"]
    files.remove_tree(tree)
    assert not tree.exists()
    (tmp_path / "itself").symlink_to(tmp_path / "kept")
    files.remove_tree(tmp_path / "itself")
    assert not (tmp_path / "itself").is_symlink()
    assert (tmp_path / "kept" / "file").exists()


def test_file_is_created_once(files: Files, tmp_path: Path) -> None:
    """Complete at once, and of several makers one; nothing is left beside it."""
    path = tmp_path / HOSTILE

    def create(number: int) -> bool:
        try:
            files.create(path, f"{number}")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(create, range(8)))
    assert made.count(True) == 1
    assert files.read(path) == str(made.index(True)).encode()
    assert _mode(path) == 0o600
    assert list(files.names(tmp_path)) == [HOSTILE]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "secret")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("put", [_fifo, _link, _device, _directory])
@pytest.mark.timeout(20)
def test_what_is_no_file_of_its_place_is_not_read(
    files: Files, tmp_path: Path, put: Callable[[Path], None]
) -> None:
    """Reading neither waits, nor leads elsewhere, nor never ends."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "job").mkdir()
    path = tmp_path / "job" / "stdout"
    put(path)
    with pytest.raises(UnfitFileError, match="is not a regular file"):
        files.read(path)
    with pytest.raises(UnfitFileError, match="is not a regular file"):
        files.read_from(path, 0, 10)


def test_job_directory_that_is_a_link_is_not_read(files: Files, tmp_path: Path) -> None:
    """The file in it is a regular one, and somebody else's."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "stdout").write_text("secret")
    (tmp_path / "job").symlink_to(tmp_path / "other")
    with pytest.raises(UnfitFileError, match="not in a directory of its own"):
        files.read_from(tmp_path / "job" / "stdout", 0, 10, within=tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    path = tmp_path / "link" / "other" / "stdout"
    assert files.read(path, within=tmp_path / "link") == b"secret"  # links above are the site's


def test_file_that_is_too_large_is_not_read(files: Files, tmp_path: Path) -> None:
    """A sparse file costs its writer nothing."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert files.read(path, limit=100) == b"x" * 100
    with pytest.raises(UnfitFileError, match="larger than 99 bytes"):
        files.read(path, limit=99)
    os.truncate(path, 1 << 40)
    with pytest.raises(UnfitFileError, match="larger than 1048576 bytes"):
        files.read(path)


def test_file_that_its_mode_shuts_is_told_from_one_that_the_file_system_refuses(
    tmp_path: Path,
) -> None:
    """The first is user code's doing, the other may pass."""
    path = tmp_path / "job" / "exit.json"
    path.parent.mkdir()
    path.touch(0o600)

    def mode_of(place: Path) -> int:
        return place.lstat().st_mode

    require_open_modes(path, tmp_path, mode_of)
    for shut, mode in ((path, 0o200), (path.parent, 0o300)):
        shut.chmod(mode)
        with pytest.raises(UnfitFileError, match=f"the mode of {shut} forbids it"):
            require_open_modes(path, tmp_path, mode_of)
        shut.chmod(0o700)


def test_only_links_to_directories_that_are_followed_are_directories(
    files: Files, tmp_path: Path
) -> None:
    """Also when there is nothing, or a file in the way."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "directory")
    assert files.is_directory(tmp_path / "directory", follow=False)
    assert files.is_directory(tmp_path / "link")
    for path in ("link", "file", "absent", "file/below"):
        assert not files.is_directory(tmp_path / path, follow=False)


def test_what_is_there_was_changed_at_a_time(files: Files, tmp_path: Path) -> None:
    """Of a link that of the link: where it leads may be another's."""
    (tmp_path / "directory").mkdir()
    os.utime(tmp_path / "directory", (1000, 1000))
    (tmp_path / "link").symlink_to(tmp_path / "directory")
    assert files.modified(tmp_path / "directory") == 1000
    assert files.modified(tmp_path / "link") > 1000
    with pytest.raises(FileNotFoundError):
        files.modified(tmp_path / "absent")


WITHOUT_LINKS = """
import sys
from pathlib import Path
from hpc_agent.files import LocalFiles

files, root = LocalFiles(), Path(sys.argv[1])
files.create(root / "once", "first")
try:
    files.create(root / "once", "second")
except FileExistsError:
    print("exists")
files.link(root / "once", root / "copy")
"""


@pytest.mark.skipif(not is_supported(), reason="link(2) cannot be refused on this machine")
def test_where_links_are_refused_files_are_created_once_and_copied(tmp_path: Path) -> None:
    """By O_EXCL, and with nothing left beside them."""
    assert run_without_links(WITHOUT_LINKS, str(tmp_path)) == "exists\n"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "once": "first",
        "copy": "first",
    }
    assert {path.stat().st_nlink for path in tmp_path.iterdir()} == {1}


def test_threads_do_not_get_each_others_answers(files: Files, tmp_path: Path) -> None:
    """SFTP is one conversation; each waits for its turn."""

    def write_and_read(number: int) -> bytes:
        files.write(tmp_path / str(number), str(number) * 1000)
        return files.read(tmp_path / str(number))

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(write_and_read, range(40)))
    assert answers == [str(number).encode() * 1000 for number in range(40)]


def test_lost_connection_is_no_absence_and_the_next_use_connects_anew(
    sftp: SftpFiles, sshd: Sshd, tmp_path: Path
) -> None:
    """Whoever asks learns that nothing was learned."""
    sftp.write(tmp_path / "file", "x")
    sshd.end_sessions()
    with pytest.raises(
        SchedulerUnavailableError, match=r"Unable to connect to 127\.0\.0\.1 by ssh"
    ):
        for _ in range(1000):  # the first answers may still be on their way
            sftp.read(tmp_path / "file")
    assert sftp.read(tmp_path / "file") == b"x"


def test_machine_without_sftp_says_what_to_do(tmp_path: Path) -> None:
    """The words name both ways out."""
    with running_sshd(tmp_path / "sshd", {"A": "b"}, more=[]) as running:
        shared = SharedConnection(running.target)
        with pytest.raises(SchedulerUnavailableError, match=r"Subsystem sftp.*files: mounted"):
            SftpFiles(shared).read(tmp_path / "file")
        shared.close()
