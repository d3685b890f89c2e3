"""The node program's files: complete or absent, whatever user code puts in their place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.node.disk import DiskTrouble, Interrupted, patiently
from hpc_agent.node.job_files import (
    NotRegular,
    create_json,
    open_output,
    read_regular,
    write_json,
)
from tests.disks import Disk, mounted_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted_disk(tmp_path / "disk") as mounted:
        yield mounted


def test_of_a_file_that_does_not_fit_nothing_is_left(disk: Disk) -> None:
    """Neither the name, half a content, nor a temporary file; the old one is as it was."""
    old = disk.path / "old"
    write_json(str(old), {"old": True})
    disk.fill()
    for write in (write_json, create_json):
        with pytest.raises(OSError, match="No space left"):
            write(str(disk.path / "new"), {"x": "y" * 10_000})
    with pytest.raises(OSError, match="No space left"):
        write_json(str(old), {"x": "y" * 10_000})
    assert sorted(path.name for path in disk.path.iterdir()) == [".ballast", "old"]
    assert json.loads(old.read_text()) == {"old": True}


def test_a_file_is_created_once(tmp_path: Path) -> None:
    """The second maker leaves the first one's content."""
    path = tmp_path / "claim"
    assert create_json(str(path), {"number": 1})
    assert not create_json(str(path), {"number": 2})
    assert json.loads(path.read_text()) == {"number": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A FIFO would be waited for, a device be read for ever."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "link", "directory"):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            read_regular(str(tmp_path / name))
    (tmp_path / "file").write_text("x" * 100)
    with pytest.raises(NotRegular, match="larger than 99"):
        read_regular(str(tmp_path / "file"), 99)


@pytest.mark.timeout(20)
def test_output_goes_to_a_file_whatever_was_there(tmp_path: Path) -> None:
    """What an earlier start wrote is added to; a FIFO or a link makes way."""
    (tmp_path / "file").write_text("old ")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "link").symlink_to("elsewhere")
    for name, text in (("file", "old new"), ("fifo", "new"), ("link", "new")):
        descriptor = open_output(str(tmp_path / name))
        os.write(descriptor, b"new")
        os.close(descriptor)
        assert (tmp_path / name).read_text() == text
    assert (tmp_path / "elsewhere").read_text() == "kept"


def test_disk_trouble_is_waited_for_and_other_errors_are_not(disk: Disk) -> None:
    """Until it passes, the time is over, or a signal comes."""
    path = str(disk.path / "file")
    disk.fill()
    waits = []

    def write() -> None:
        write_json(path, {"x": "y" * 10_000})

    def free(seconds: float) -> bool:
        waits.append(seconds)
        disk.free()
        return False

    with pytest.raises(DiskTrouble, match=r"writing: .*No space left"):
        patiently("writing", write, 0.0, free)
    with pytest.raises(Interrupted):
        patiently("writing", write, 10.0, lambda _: True)
    patiently("writing", write, 10.0, free)
    assert len(waits) == 1
    with pytest.raises(DiskTrouble, match="No such file"):
        patiently("reading", (disk.path / "absent").stat, 10.0, free)
