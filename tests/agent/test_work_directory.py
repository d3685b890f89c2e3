"""A work directory that will not do is told at start."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpc_agent.cluster.work_directory import check_work_directory, make_artifacts_directory
from hpc_agent.cluster.work_directory_owner import check_owner, claim_work_directory
from hpc_agent.errors import ConfigError, LeaseHeldError, UnsafePathError
from hpc_agent.files import LocalFiles
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.slurm.ssh_files import SftpFiles
from hpc_agent.slurm.ssh_shared import SharedConnection
from tests.ssh import running_sshd


@pytest.fixture
def file_in_the_way(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "file"
    path.touch()
    yield path


def test_directory_of_this_machine_alone_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Compute nodes will not find their job directories there: what to do is said."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.strip()
    if kind in {"nfs", "lustre", "gpfs"}:
        pytest.skip(f"the tests run on {kind}, which other machines see")
    with caplog.at_level(logging.WARNING):
        check_work_directory(WorkDirectory(tmp_path / "work"))
    assert "a directory that every compute node sees" in caplog.text


def test_one_machine_needs_no_shared_directory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the local scheduler nothing is said."""
    check_work_directory(WorkDirectory(tmp_path / "work"), warn_if_local=False)
    assert caplog.text == ""
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700


def test_directory_of_artifacts_is_private(tmp_path: Path) -> None:
    make_artifacts_directory(tmp_path / "artifacts", LocalFiles())
    assert (tmp_path / "artifacts").stat().st_mode & 0o777 == 0o700


def test_directory_of_artifacts_in_which_others_may_have_written_is_refused(
    tmp_path: Path,
) -> None:
    """What is in it is unpickled, which is to execute it."""
    planted = tmp_path / "artifacts"
    (planted / "prod" / "here" / "storage").mkdir(parents=True)
    planted.chmod(0o777)
    with pytest.raises(UnsafePathError, match=r"artifacts\.directory: "):
        make_artifacts_directory(planted, LocalFiles())


def test_directory_that_cannot_be_made_is_a_configuration_error(file_in_the_way: Path) -> None:
    """Key and reason."""
    with pytest.raises(ConfigError, match=r"work_dir: .*Not a directory"):
        check_work_directory(WorkDirectory(file_in_the_way / "work"))


@pytest.fixture(params=["local", "sftp"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WorkDirectory]:
    """A work directory here, and one behind a real sshd."""
    if request.param == "local":
        made = WorkDirectory(tmp_path / "work")
        made.make()
        yield made
        return
    with running_sshd(tmp_path / "sshd", {"A": "b"}) as sshd:
        shared = SharedConnection(sshd.target)
        made = WorkDirectory(tmp_path / "work", SftpFiles(shared))
        made.make()
        yield made
        shared.close()


def owner_of(work: WorkDirectory) -> dict[str, object]:
    content: dict[str, object] = json.loads((work.path / "owner.json").read_text())
    return content


def test_work_directory_has_one_owner(work: WorkDirectory, tmp_path: Path) -> None:
    """The first one has it, start after start, and no other gets it."""
    for _ in range(2):
        claim_work_directory(work, "agent-1", home=tmp_path / "home-1")
    with pytest.raises(ConfigError, match=r"belongs to another agent: agent-1, with its home .*-1"):
        claim_work_directory(work, "agent-2", home=tmp_path / "home-2")
    assert owner_of(work)["agent_id"] == "agent-1"
    assert stat.S_IMODE((work.path / "owner.json").stat().st_mode) == 0o600


def test_agent_that_moved_keeps_its_work_directory(work: WorkDirectory, tmp_path: Path) -> None:
    """Its id is in its home; where it is now is noted."""
    claim_work_directory(work, "agent-1", home=tmp_path / "before")
    claim_work_directory(work, "agent-1", home=tmp_path / "after")
    assert owner_of(work)["home"] == str(tmp_path / "after")


def test_work_directory_of_a_lost_home_is_taken_over(work: WorkDirectory, tmp_path: Path) -> None:
    """When an administrator says so; the old agent is then the one that is refused."""
    claim_work_directory(work, "agent-1", home=tmp_path)
    claim_work_directory(work, "agent-2", home=tmp_path, take_over=True)
    claim_work_directory(work, "agent-2", home=tmp_path)
    with pytest.raises(ConfigError, match="belongs to another agent: agent-2"):
        claim_work_directory(work, "agent-1", home=tmp_path)


def test_of_many_agents_that_start_at_once_one_gets_the_work_directory(
    work: WorkDirectory, tmp_path: Path
) -> None:
    """None sees half a note."""

    def start(number: int) -> bool:
        try:
            claim_work_directory(work, f"agent-{number}", home=tmp_path)
        except ConfigError as error:
            assert "belongs to another agent" in str(error)
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(start, range(8))) == 1
    assert list(work.path.glob(".owner*")) == []


@pytest.mark.parametrize("is_ours", [True, False])
def test_work_directory_from_before_there_were_owners(
    work: WorkDirectory, tmp_path: Path, is_ours: bool
) -> None:
    """It is the agent's to whose relay it leads."""
    (tmp_path / "relay-certificate.pem").write_text("ours")
    told = {"version": 1, "addresses": [], "certificate": "ours" if is_ours else "theirs"}
    (work.path / "relay.json").write_text(json.dumps(told))
    if is_ours:
        claim_work_directory(work, "agent-1", home=tmp_path)
        assert owner_of(work)["agent_id"] == "agent-1"
    else:
        with pytest.raises(ConfigError, match="is used by another agent: its relay"):
            claim_work_directory(work, "agent-1", home=tmp_path)
        assert not (work.path / "owner.json").exists()


@pytest.mark.parametrize("content", ["", "null", "[]", '{"agent_id": 3}', "[" * 100_000])
def test_owner_that_cannot_be_read_is_not_nobody(
    work: WorkDirectory, tmp_path: Path, content: str
) -> None:
    """Somebody wrote it: a person decides."""
    (work.path / "owner.json").write_text(content)
    with pytest.raises(ConfigError, match=r"owner\.json does not say whose .*--take-over-work-dir"):
        claim_work_directory(work, "agent-1", home=tmp_path)


def test_owner_that_is_a_fifo_is_told(work: WorkDirectory, tmp_path: Path) -> None:
    """Nobody waits for a writer."""
    os.mkfifo(work.path / "owner.json")
    with pytest.raises(ConfigError, match=r"owner\.json is not a regular file"):
        claim_work_directory(work, "agent-1", home=tmp_path)


def test_agent_whose_work_directory_was_taken_over_ends(tmp_path: Path) -> None:
    """Its relay.json leads to the other one's relay by then."""
    work = WorkDirectory(tmp_path / "work")
    work.make()
    claim_work_directory(work, "agent-1", home=tmp_path / "home-1")
    check_owner(work, "agent-1")
    claim_work_directory(work, "agent-2", home=tmp_path / "home-2", take_over=True)
    with pytest.raises(LeaseHeldError, match="taken over by another agent: agent-2"):
        check_owner(work, "agent-1")
