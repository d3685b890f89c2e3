"""Files that grow while they are read."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from dagster_hpc.commands.output import Output
from dagster_hpc.commands.tail import Line, LineTail, Tail, TailError

from tests.dagster_hpc.leases import leased


def written(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_half_a_line_waits_for_the_rest(tmp_path: Path) -> None:
    """Lines are numbered, and end where they end in the file, in whatever pieces they come."""
    path = tmp_path / "lines"
    tail = LineTail(str(path))
    assert tail.read() is None
    written(path, b"one\ntw")
    assert tail.read() == [Line(1, 4, b"one")]
    assert tail.read() is None
    written(path, "o€".encode()[:2])
    assert tail.read() == []
    written(path, "o€".encode()[2:] + b"\n\nfour")
    assert tail.read() == [Line(2, 11, "two€".encode()), Line(3, 12, b"")]
    assert tail.last() == Line(4, 16, b"four")
    assert tail.last() is None


def test_too_long_a_line_is_left_out_and_counted(tmp_path: Path) -> None:
    """It takes no memory, and hides none of those behind it."""
    path = tmp_path / "lines"
    tail = LineTail(str(path), longest=4)
    for piece in (b"ab", b"cd", b"ef", b"\nnext\n12345"):
        written(path, piece)
        lines = tail.read()
    assert lines == [Line(1, 7, None), Line(2, 12, b"next")]
    assert tail.last() == Line(3, 17, None)


def test_chunks_are_bounded(tmp_path: Path) -> None:
    """However much there is, a call returns a part."""
    path = tmp_path / "much"
    path.write_bytes(b"x" * (3 << 20))
    tail = Tail(str(path))
    sizes = []
    while content := tail.read():
        sizes.append(len(content))
    assert sum(sizes) == 3 << 20
    assert max(sizes) <= 1 << 20


def test_what_was_cut_is_said(tmp_path: Path) -> None:
    """A file that is shorter than what was read of it is another one."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\n")
    tail = Tail(str(path))
    tail.read()
    path.write_bytes(b"")
    with pytest.raises(TailError, match="was cut to 0 bytes"):
        tail.read()


def test_output_of_a_job_that_was_begun_again_comes_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of what the first one has printed, and then the other's."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        (directory / "stdout").write_text(f"by the {directory.name}\n")
    output = Output()
    output.pass_on(first)
    with (first / "stdout").open("a") as file:
        file.write("and its last words\n")
    while output.pass_on(second):
        pass
    printed = capsys.readouterr().out
    assert printed == "by the first\nand its last words\nby the second\n"


def test_file_that_cannot_be_opened_for_a_while_is_read_later(tmp_path: Path) -> None:
    """From where it was; so is one whose directory has gone with its mount."""
    path = tmp_path / "mount" / "lines"
    path.parent.mkdir()
    path.write_bytes(b"one\n")
    tail = Tail(str(path))
    assert tail.read() == b"one\n"
    written(path, b"two\n")
    with leased(path):
        assert tail.read() == b""
        assert tail.trouble is not None
    path.parent.rename(tmp_path / "away")
    assert tail.read() == b""
    assert tail.trouble is not None
    (tmp_path / "away").rename(path.parent)
    assert tail.read() == b"two\n"
    assert tail.trouble is None


def test_file_that_cannot_be_read_for_a_while_is_no_other_one() -> None:
    """EIO, as a server gives it that is away. Nothing is at the first address of a process."""
    tail = Tail(f"/proc/{os.getpid()}/mem")
    assert tail.read() == b""
    assert tail.trouble is not None
    assert tail.trouble.errno == errno.EIO


def test_file_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    """A job that has not begun prints nothing; one that is a link never will."""
    tail = Tail(str(tmp_path / "stdout"))
    assert tail.read() == b""
    assert tail.trouble is None
    (tmp_path / "stdout").symlink_to("/etc/passwd")
    with pytest.raises(TailError, match="cannot be read: Too many levels"):
        tail.read()


def test_output_that_stays_unreadable_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the log of the step, where it would be."""
    (tmp_path / "stdout").write_text("first\n")
    (tmp_path / "stderr").write_text("other\n")
    output = Output()
    output.pass_on_the_rest(tmp_path / "never begun", time.monotonic() + 3600)
    with leased(tmp_path / "stdout"):
        output.pass_on_the_rest(tmp_path, time.monotonic())
    printed = capsys.readouterr()
    assert "[output of the job: the rest cannot be read: [Errno 11]" in printed.out
    assert printed.err == "other\n"
