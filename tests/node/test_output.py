"""What a child prints is written as the disk allows, and nobody fails by it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpc_agent.node.output import Output
from tests.disks import Disk, mounted_disk

TAIL = 64
SAY = "import sys; sys.stdout.write('out'); sys.stderr.write('x' * 1000 + 'the end')"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The disk that job directories are on."""
    with mounted_disk(tmp_path / "work") as mounted:
        yield mounted


@contextmanager
def started(output: Output, program: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a child that prints into it."""
    argv = [sys.executable, "-c", program]
    stdout, stderr = output.sinks
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr) as child:
        output.start()
        yield child


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until it is."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descriptors() -> set[str]:
    """The open descriptors of this process."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_both_streams_are_written_and_added_to(tmp_path: Path) -> None:
    """A second start adds to what the first has printed; the tail is its own."""
    (tmp_path / "stderr").write_text("before ")
    output = Output(str(tmp_path), TAIL)
    with started(output, SAY) as child:
        assert child.wait(30) == 0
    output.close()
    output.close()
    assert (tmp_path / "stdout").read_text() == "out"
    assert (tmp_path / "stderr").read_text() == "before " + "x" * 1000 + "the end"
    assert output.stderr_tail() == "x" * (TAIL - 7) + "the end"


def test_much_is_written_whole(tmp_path: Path) -> None:
    """More than a pipe holds, and more than is held for a disk that is full."""
    output = Output(str(tmp_path), TAIL)
    with started(output, "print('line\\n' * 1_000_000, end='')") as child:
        assert child.wait(30) == 0
    output.close()
    assert (tmp_path / "stdout").read_text() == "line\n" * 1_000_000


def test_full_disk_fails_no_child(disk: Disk, capfd: pytest.CaptureFixture[str]) -> None:
    """It prints and ends well meanwhile; what it said is there when the disk takes it again."""
    output = Output(str(disk.path), TAIL)
    disk.fill()
    said = "; sys.stdout.flush(); open(0).readline(); sys.stdout.write(' more')"
    with started(output, SAY + said) as child:
        eventually(lambda: "cannot write stdout" in capfd.readouterr().out)
        disk.free()
        eventually(lambda: (disk.path / "stdout").read_text() == "out")
        child.communicate(b"\n", timeout=30)
        assert child.returncode == 0
    output.close()
    assert (disk.path / "stdout").read_text() == "out more"
    assert (disk.path / "stderr").read_text().endswith("the end")


def test_what_a_full_disk_made_missing_is_told(
    disk: Disk, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bounded part waits for the disk; the file says how much is not in it."""
    output = Output(str(disk.path), TAIL)
    disk.fill()
    with started(output, "print('x' * 3_000_000 + 'the end', end='')") as child:
        assert child.wait(30) == 0
    disk.free()
    output.close()
    written = (disk.path / "stdout").read_bytes()
    head, _, rest = written.partition(b"\n[hpc-agent: ")
    missing, _, kept = rest.partition(b" bytes are missing here]\n")
    assert len(head) + int(missing) + len(kept) == 3_000_007
    assert kept.endswith(b"the end")
    assert "cannot write stdout: [Errno 28]" in capfd.readouterr().out


@pytest.mark.timeout(20)
def test_a_process_that_stays_holds_nothing_up(tmp_path: Path) -> None:
    """One that left the child's group keeps its end of the pipe open; what came is written."""
    output = Output(str(tmp_path), TAIL)
    leave = "import os; os.write(1, b'said'); os.fork() or (os.setsid(), open(0).read())"
    with started(output, leave) as child:
        assert child.wait(30) == 0
        output.close()
        assert (tmp_path / "stdout").read_text() == "said"


def test_output_that_never_began_is_closed(tmp_path: Path) -> None:
    """As after a program that could not be started: no descriptor is left."""
    before = descriptors()
    Output(str(tmp_path), TAIL).close()
    assert descriptors() == before


def test_a_directory_that_refuses_leaves_no_descriptor(tmp_path: Path) -> None:
    """The caller tries again."""
    (tmp_path / "stderr").mkdir()
    before = descriptors()
    with pytest.raises(OSError, match="Is a directory"):
        Output(str(tmp_path), TAIL)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("prints", "tail"),
    [
        (
            "'a' * 300 + chr(10) + 'the middle' + chr(10) + 'last'",
            "the middle\nlast",
        ),
        ("'first' + chr(10) + 'last' + chr(10)", "first\nlast\n"),
        ("'b' * 300 + chr(10)", "b" * (TAIL - 1) + "\n"),
    ],
)
def test_tail_has_whole_lines(tmp_path: Path, prints: str, tail: str) -> None:
    """Half a line at its beginning says nothing; of one that is longer there is what fits."""
    output = Output(str(tmp_path), TAIL)
    with started(output, f"import sys; sys.stderr.write({prints})") as child:
        assert child.wait(30) == 0
    output.close()
    assert output.stderr_tail() == tail
