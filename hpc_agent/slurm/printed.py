"""What a command printed, taken apart: its records, what may have been one, and what was none.

A wrapper or a shell's start-up file may print lines of its own before, between or after the
output, and output may be cut anywhere. So every command is asked for its header, without which
nothing was printed or not all of it, and separates by what no text of a user contains. What cannot
be read is told apart from what is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hpc_agent.errors import SchedulerUnreadableError
from hpc_agent.slurm.values import FIELD, RECORD

_HEADING = re.compile(r"[A-Za-z][A-Za-z_]*(?:\([A-Z/]+\))?")
_GLUED_HEADING = re.compile(r"(?P<noise>.*?)[A-Za-z_]+", re.DOTALL)
# The beginning of an id, after which the output was cut.
_TORN_ID = re.compile(r"[0-9][0-9_+,%:\[\]-]*")
_SEPARATOR = re.compile("[\x1e\x1f]")

_KEPT_CHARACTERS = 300
_KEPT_PIECES = 20
NOTHING = "(nothing, not even its header)"
_NO_HEADER = "(its header is missing)"


@dataclass(slots=True)
class Printed:
    """An output: ``rows`` are the texts of its records, ``whole`` whether it has a header."""

    rows: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    has_header: bool = False

    def put_aside(self, text: str) -> None:
        """Take lines between records for noise, unless they may be a record that was torn.

        Before the header there are no records.
        """
        for line in text.split("\n"):
            may_be_id = self.has_header and _TORN_ID.fullmatch(line.strip())
            if may_be_id or _SEPARATOR.search(line):
                self.unreadable.append(line)
            elif line.strip():
                self.noise.append(line)

    def add(self, row: str, width: int) -> None:
        """Add a record, or put a header aside."""
        fields = row.split(FIELD)
        if not self.has_header and len(fields) == width and _is_header(fields):
            match = _GLUED_HEADING.fullmatch(fields[0])
            self.put_aside(match["noise"] if match is not None else "")
            self.has_header = True
        else:
            self.rows.append(row)


def _is_header(fields: Sequence[str]) -> bool:
    # Something may be glued to the front of the first heading; no field of a record is a letter
    # in all places.
    return fields[0][-1:].isalpha() and all(map(_HEADING.fullmatch, fields[1:]))


def read_records(stdout: str, width: int) -> Printed:
    """Take apart what ends each record by RECORD (squeue, sinfo)."""
    printed = Printed()
    *records, tail = stdout.split(RECORD)
    for record in records:
        printed.add(record.removeprefix("\n"), width)
    if records and not tail:
        printed.unreadable.append("(the newline after the last record is missing)")
    printed.put_aside(tail)
    return _judged(printed, stdout)


def read_lines(stdout: str, width: int) -> Printed:
    """Take apart what ends each record by a newline, which its texts may contain too (sacct)."""
    printed = Printed()
    row = ""
    lines = stdout.split("\n")
    for number, line in enumerate(lines):
        is_cut = number == len(lines) - 1  # after the last newline there is nothing
        if not row and (FIELD not in line or is_cut):
            printed.put_aside(line)
            continue
        longer = f"{row}\n{line}" if row else line
        if longer.count(FIELD) >= width and row:  # two records: the first one was torn
            printed.unreadable.append(row)
            longer = line
        row = longer
        if row.count(FIELD) >= width - 1 and not is_cut:
            printed.add(row, width)
            row = ""
    if row.strip():
        printed.unreadable.append(row)
    return _judged(printed, stdout)


def _judged(printed: Printed, stdout: str) -> Printed:
    if not printed.has_header:
        printed.unreadable.append(_NO_HEADER if stdout.strip() else NOTHING)
    return printed


def split(row: str, width: int) -> tuple[list[str], str] | None:
    """Return the fields of a record and the noise before it; None when it is no record."""
    fields = row.split(FIELD)
    if len(fields) != width:
        return None
    noise, _, first = fields[0].rpartition("\n")
    return [first.strip(), *fields[1:]], noise


def shortened(texts: Iterable[str]) -> tuple[str, ...]:
    """Return texts fit to be kept and shown: without those that say the same, each cut short."""
    kept = list(dict.fromkeys(_short(text) for text in texts))
    left = len(kept) - _KEPT_PIECES
    return (*kept[:_KEPT_PIECES], *([f"(and {left} more)"] if left > 0 else []))


def _short(text: str) -> str:
    words = text.replace(FIELD, " | ").replace(RECORD, "").strip()
    plain = "".join(each if each.isprintable() else " " for each in words)
    return plain if len(plain) <= _KEPT_CHARACTERS else f"{plain[:_KEPT_CHARACTERS]}…"


def unreadable(command: str, stdout: str) -> SchedulerUnreadableError:
    """Return the error of a single answer that is no answer."""
    words = _short(stdout) or "nothing"
    return SchedulerUnreadableError(
        f"{command} printed what cannot be read: {words}. Something prints in its place or before"
        f" it: `hpc-agent doctor` says what"
    )
