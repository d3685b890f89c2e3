"""The work directory: disk trouble is no absence, and what jobs do to their directory stays there.

Both here and behind a real sshd.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc_agent.errors import FilesUnavailableError
from hpc_agent.jobs.array_script import prepare_array
from hpc_agent.jobs.directory import NodeSpec, WorkDirectory
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.slurm.ssh_files import SftpFiles
from hpc_agent.slurm.ssh_shared import SharedConnection
from hpc_agent.store.workers import WorkerKind
from tests.disks import Disk, mounted_disk
from tests.ssh import Sshd, running_sshd

KEY = "run-1"
RECORD = {"outcome": "exited", "exit_code": 3, "ended_at": 5.0, "key": KEY, "slurm_job_id": "17"}
CLAIM = {"slurm_job_id": "17", "restart_count": 1, "hostname": "c1", "started_at": 5.0}
SPEC = NodeSpec(
    key=KEY,
    kind=WorkerKind.PACK,
    argv=["x" * 5000],
    environment={},
    working_directory=None,
    grace_seconds=1,
)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd"), {"A": "b"}) as running:
        yield running


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The disk that the work directory is on."""
    with mounted_disk(tmp_path / "disk") as mounted:
        yield mounted


@pytest.fixture(params=["local", "sftp"])
def make(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[Path], WorkDirectory]]:
    """Return what makes a work directory, here and elsewhere."""
    if request.param == "local":
        yield lambda path: _made(WorkDirectory(path))
        return
    shared = SharedConnection(request.getfixturevalue("sshd").target)
    yield lambda path: _made(WorkDirectory(path, SftpFiles(shared)))
    shared.close()


def _made(work: WorkDirectory) -> WorkDirectory:
    work.make()
    return work


@pytest.fixture
def work(make: Callable[[Path], WorkDirectory], tmp_path: Path) -> WorkDirectory:
    """A work directory on a healthy disk, reached by a link as sites have it."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "scratch")
    return make(tmp_path / "work")


def write(work: WorkDirectory, name: str, content: object) -> Path:
    work.of(KEY).mkdir(exist_ok=True)
    path = work.of(KEY) / name
    path.write_text(json.dumps(content))
    return path


def prepare(work: WorkDirectory) -> Path:
    """Do all that a launch does before sbatch."""
    program = build_node_program(work.lib, work.files)
    directory = work.prepare(SPEC, token="t" * 5000, program=program)
    work.write_script(KEY, "#!/bin/sh\n" + "#" * 5000)
    return directory


def test_record_and_claim_are_read(work: WorkDirectory) -> None:
    """And their absence is no error."""
    assert (work.exit_record(KEY), work.claim(KEY)) == (None, None)
    write(work, "exit.json", RECORD)
    write(work, "claim", CLAIM)
    record, claim = work.exit_record(KEY), work.claim(KEY)
    assert record is not None
    assert claim is not None
    assert (record.exit_code, record.slurm_job_id) == (3, "17")
    assert (claim.slurm_job_id, claim.restart_count, claim.hostname) == ("17", 1, "c1")


def test_record_of_a_duplicate_is_not_the_jobs(work: WorkDirectory) -> None:
    """It ends nothing."""
    write(work, "exit.json", {**RECORD, "outcome": "duplicate"})
    assert work.exit_record(KEY) is None


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _linked_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


def _huge(path: Path) -> None:
    os.truncate(path, 1 << 40)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _file_for_directory(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.touch()


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "spoil",
    [_fifo, _link, _linked_directory, _huge, _directory, _file_for_directory, _device],
)
@pytest.mark.timeout(20)
def test_what_user_code_puts_in_the_place_of_a_record_is_no_record(
    work: WorkDirectory, spoil: Callable[[Path], None]
) -> None:
    """Nobody waits for a FIFO, follows a link, or reads a terabyte."""
    spoil(write(work, "exit.json", RECORD))
    assert work.exit_record(KEY) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read what a mode forbids")
def test_record_that_user_code_has_shut_is_no_record(work: WorkDirectory) -> None:
    """Waiting would open nothing."""
    write(work, "exit.json", RECORD).chmod(0)
    assert work.exit_record(KEY) is None


def test_work_directory_that_is_not_mounted_says_nothing_of_a_job(work: WorkDirectory) -> None:
    """All would seem absent, and every job lost; nor is one prepared in its place."""
    write(work, "exit.json", RECORD)
    work.jobs.rename(work.path / "away")
    with pytest.raises(FilesUnavailableError, match=r"is not there, as when it is not mounted"):
        work.exit_record(KEY)
    with pytest.raises(FilesUnavailableError, match="runs and code servers wait until"):
        prepare(work)
    assert not work.jobs.exists()
    (work.path / "away").rename(work.jobs)
    assert work.exit_record(KEY) is not None


def test_purge_stays_in_the_work_directory(work: WorkDirectory, tmp_path: Path) -> None:
    """Whatever user code linked, and if it is its directory itself."""
    kept = tmp_path / "kept"
    (kept / "below").mkdir(parents=True)
    (kept / "below" / "file").touch()
    write(work, "exit.json", RECORD)
    (work.of(KEY) / "link").symlink_to(kept)
    (work.of("run-2")).symlink_to(kept)
    for key in (KEY, "run-2", "run-3"):
        work.remove(key)
    assert list(work.jobs.iterdir()) == []
    assert (kept / "below" / "file").exists()


def test_directory_of_a_new_job_is_not_made_where_a_link_leads(
    work: WorkDirectory, tmp_path: Path
) -> None:
    """The token would be written there."""
    (tmp_path / "elsewhere").mkdir()
    work.of(KEY).symlink_to(tmp_path / "elsewhere")
    prepare(work)
    assert not work.of(KEY).is_symlink()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def is_complete(directory: Path) -> bool:
    """Whether a job's directory has all of its content, and nothing that was left half-way."""
    written = ("job.sh", "node.pyz", "spec.json", "token")
    names = {path.name for path in directory.iterdir()}
    return names == {*written, "relay.json", "servers"} and all(
        (directory / name).stat().st_size >= 5000 for name in written
    )


@pytest.mark.parametrize("leave", [0, 4096, 8192, 16384])
def test_job_is_not_prepared_while_the_disk_is_full_and_is_afterwards(
    make: Callable[[Path], WorkDirectory], disk: Disk, leave: int
) -> None:
    """Wherever it stopped."""
    work = make(disk.path / "work")
    program = build_node_program(work.lib, work.files)
    assert program.stat().st_size > 5000
    disk.fill(leave=leave)
    for _ in range(2):
        with pytest.raises(
            FilesUnavailableError, match=r"is full .*wait until there is room again"
        ):
            prepare(work)
    disk.free()
    assert is_complete(prepare(work))


def test_read_only_disk_is_waited_for(make: Callable[[Path], WorkDirectory], disk: Disk) -> None:
    """Every method that writes says so; what can be read is."""
    work = make(disk.path / "work")
    prepare(work)
    write(work, "exit.json", RECORD)
    disk.make_read_only()
    try:
        assert work.exit_record(KEY) is not None
        for do in (
            lambda: work.write_script(KEY, "x"),
            lambda: work.order(KEY, "srv-1"),
            lambda: prepare_array(work, "arr-1", [KEY]),
            lambda: work.prepare(SPEC, token="t", program=work.lib / "node.pyz"),
        ):
            with pytest.raises(FilesUnavailableError, match=r"is read-only"):
                do()
    finally:
        disk.make_writable()
    work.order(KEY, "srv-1")
    work.withdraw_order(KEY, "srv-1")


def test_array_is_prepared_once_there_is_room(
    make: Callable[[Path], WorkDirectory], disk: Disk
) -> None:
    """All tasks or none."""
    work = make(disk.path / "work")
    prepare(work)
    disk.fill()
    with pytest.raises(FilesUnavailableError, match="is full"):
        prepare_array(work, "arr-1", [KEY] * 3)
    disk.free()
    script = prepare_array(work, "arr-1", [KEY] * 3)
    assert {path.name for path in script.parent.iterdir()} == {"0", "1", "2", "job.sh"}


def test_half_a_copy_of_the_node_program_is_replaced(tmp_path: Path) -> None:
    """As an agent left it that copied where links are refused and the disk became full."""
    work = _made(WorkDirectory(tmp_path / "work"))
    directory = prepare(work)
    whole = (directory / "node.pyz").read_bytes()
    (directory / "node.pyz").unlink()
    (directory / "node.pyz").write_bytes(whole[:100])
    prepare(work)
    assert (directory / "node.pyz").read_bytes() == whole
