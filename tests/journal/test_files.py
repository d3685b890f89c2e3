"""Files of lines: bounded, private, and in nobody's way."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_agent.errors import ConfigError
from hpc_agent.journal.configuration import JournalOptions, configure_journal
from hpc_agent.journal.files import PrivateFileHandler, Rotation
from hpc_agent.journal.output import OutputFile
from tests.disks import mounted_disk

SMALL = Rotation(max_bytes=1000, keep=3)


def written(path: Path) -> list[str]:
    """Return all lines that are kept, the oldest first."""
    files = sorted(path.parent.glob(f"{path.name}*"), key=lambda each: each.suffix, reverse=True)
    older = [each for each in files if each != path]
    return [line for each in [*older, path] for line in each.read_text().splitlines()]


def emit(handler: PrivateFileHandler, *texts: str) -> None:
    for text in texts:
        handler.emit(logging.makeLogRecord({"msg": text}))


def test_files_are_bounded_in_size_and_number(tmp_path: Path) -> None:
    """What is oldest goes; each is this account's alone."""
    path = tmp_path / "x.log"
    handler = PrivateFileHandler(path, SMALL)
    emit(handler, *(f"line {number:05}" for number in range(1000)))
    handler.close()

    files = sorted(tmp_path.iterdir())
    assert [each.name for each in files] == ["x.log", "x.log.1", "x.log.2", "x.log.3"]
    assert all(each.stat().st_size <= SMALL.max_bytes for each in files)
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}
    kept = written(path)
    assert kept == [f"line {number:05}" for number in range(1000 - len(kept), 1000)]


def test_link_in_its_place_is_not_written_through(tmp_path: Path) -> None:
    """Somebody may put one where a log is expected."""
    (tmp_path / "precious").write_text("x")
    (tmp_path / "agent.log").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match="cannot write the log"):
        configure_journal(JournalOptions(file=tmp_path / "agent.log"))
    assert (tmp_path / "precious").read_text() == "x"


def test_full_disk_stops_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is said once, and the file has the gap when it can be written again."""
    with mounted_disk(tmp_path / "disk") as disk:
        path = disk.path / "x.log"
        handler = PrivateFileHandler(path, Rotation())
        emit(handler, "first")
        disk.fill()
        emit(handler, *["y" * 8000] * 20)
        disk.free()
        emit(handler, "last", "really")
        handler.close()
        lines = written(path)

    assert capsys.readouterr().err.count("No space left on device") == 1
    assert lines[0] == "first"
    assert lines[-1] == "really"
    assert any(line.endswith("lines before this one are lost") for line in lines)


TALKATIVE = """
import sys
for number in range(20000):
    print(f"line {number:05}", flush=number % 100 == 0)
sys.stdout.flush()
sys.stderr.buffer.write(b"\\xff bytes\\n")
sys.stderr.write("no end of line")
"""


def test_output_of_a_child_is_whole_and_in_order(tmp_path: Path) -> None:
    """Over the ends of files, whatever its bytes are, and without an event loop that turns."""
    path = tmp_path / "child.log"
    output = OutputFile(path, Rotation(max_bytes=50_000, keep=100))
    subprocess.run(
        [sys.executable, "-c", TALKATIVE],
        stdout=output.descriptor,
        stderr=output.descriptor,
        check=True,
    )
    output.close()

    lines = written_many(path)
    assert lines[:20000] == [f"line {number:05}" for number in range(20000)]
    assert lines[20000:] == ["\\xff bytes", "no end of line"]


def written_many(path: Path) -> list[str]:
    """Return all lines of any number of files."""
    numbered = sorted(path.parent.glob(f"{path.name}.*"), key=lambda each: -int(each.suffix[1:]))
    assert numbered, "it has rotated"
    return [line for each in [*numbered, path] for line in each.read_text().splitlines()]


def test_one_child_after_the_other_writes_into_the_same_file(tmp_path: Path) -> None:
    """A line without an end goes on in a line; one that is endless is cut."""
    path = tmp_path / "child.log"
    output = OutputFile(path, Rotation())
    for text in ("'one'", "'x' * 200000", "'two'"):
        subprocess.run(
            [sys.executable, "-c", f"print({text})"], stdout=output.descriptor, check=True
        )
    output.close()

    lines = path.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("one", "two")
    assert max(map(len, lines)) <= 64 << 10
    assert sum(map(len, lines[1:-1])) == 200_000
