"""Files that grow while they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster_hpc.commands.output import Output
from dagster_hpc.commands.tail import Line, LineTail, Tail, TailError


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
