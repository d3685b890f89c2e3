"""Tables: one line for each row, whole in a pipe, and as wide as the terminal on one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.style import Style
from rich.text import Text

from hpc_agent.cli.output import printable

_GAP = "  "
_NARROWEST = 8
_ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of rows: the name in them, and how a value is written.

    ``short`` writes it for people, ``whole`` for what reads a pipe. Only what is ``elastic`` is cut
    where the terminal is too narrow.
    """

    name: str
    title: str = ""
    short: Callable[[Any], str] = str
    whole: Callable[[Any], str] = str
    elastic: bool = False
    style: Callable[[Any], str] = lambda _: ""

    @property
    def heading(self) -> str:
        """What stands above the column."""
        return (self.title or self.name.replace("_", " ")).upper()


def print_table(
    columns: Sequence[Column | str],
    rows: Iterable[Mapping[str, Any]],
    console: Console | None = None,
) -> None:
    """Print rows as a table. None and nothing show as a dash, control characters as a space."""
    console = console or Console(highlight=False, soft_wrap=True)
    for cells in lay_out(columns, rows, console.width if console.is_terminal else None):
        console.print(Text(_GAP).join(cells))


def lay_out(
    columns: Sequence[Column | str], rows: Iterable[Mapping[str, Any]], available: int | None
) -> list[list[Text]]:
    """Return the lines of a table, its headings first, each cell as wide as its column.

    ``available`` cells are there for people; None is for what reads a pipe.
    """
    of_columns = [Column(each, elastic=True) if isinstance(each, str) else each for each in columns]
    listed = list(rows)
    is_for_people = available is not None
    cells = [[_cell(column, row, is_for_people) for column in of_columns] for row in listed]
    headings = [column.heading for column in of_columns]
    widths = [max(map(cell_len, each)) for each in zip(headings, *cells, strict=True)]
    if available is not None:
        widths = _fitted(widths, of_columns, available)
    lines = [_line([Text(text, Style(bold=True)) for text in headings], widths)]
    for row, texts in zip(listed, cells, strict=True):
        styled = [
            Text(text, column.style(row.get(column.name)))
            for column, text in zip(of_columns, texts, strict=True)
        ]
        lines.append(_line(styled, widths))
    return lines


def _cell(column: Column, row: Mapping[str, Any], is_for_people: bool) -> str:
    value = row.get(column.name)
    if value is None or value == "":
        return _ABSENT
    text = (column.short if is_for_people else column.whole)(value)
    first, _, rest = text.partition("\n")
    return printable(f"{first} …" if rest.strip() else first)


def _fitted(widths: Sequence[int], columns: Sequence[Column], available: int) -> list[int]:
    """Take from the widest elastic column until the table fits, or none can give."""
    fitted = list(widths)
    excess = sum(fitted) + len(_GAP) * (len(fitted) - 1) - available
    while excess > 0:
        elastic = [
            index
            for index, column in enumerate(columns)
            if column.elastic and fitted[index] > _NARROWEST
        ]
        if not elastic:
            break
        widest = max(elastic, key=lambda index: fitted[index])
        fitted[widest] -= 1
        excess -= 1
    return fitted


def _line(texts: Sequence[Text], widths: Sequence[int]) -> list[Text]:
    """The last cell is not filled up: nothing follows it."""
    cells = []
    for index, (text, width) in enumerate(zip(texts, widths, strict=True)):
        plain = text.plain
        if cell_len(plain) > width:
            plain = set_cell_size(plain, width - 1).rstrip() + "…"
        is_last = index == len(texts) - 1
        cells.append(Text(plain if is_last else set_cell_size(plain, width), text.style))
    return cells
