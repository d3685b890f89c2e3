"""A work directory that will not do is told at start."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.cluster.work_directory import check_work_directory
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.directory import WorkDirectory


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


def test_directory_that_cannot_be_made_is_a_configuration_error(file_in_the_way: Path) -> None:
    """Key and reason."""
    with pytest.raises(ConfigError, match=r"work_dir: .*Not a directory"):
        check_work_directory(WorkDirectory(file_in_the_way / "work"))
