"""What is asked and told in the middle of the screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import SelectionList, Static
from textual.widgets.selection_list import Selection

_BOX = """
{name} {{ align: center middle; }}
{name} > Vertical {{ width: auto; max-width: 90%; height: auto; max-height: 90%;
  border: round $accent; padding: 0 1; background: $surface; }}
{name} Static {{ width: auto; max-width: 100%; }}
"""


class Question(ModalScreen[bool]):
    """A question that only ``y`` answers with yes."""

    DEFAULT_CSS = _BOX.format(name="Question")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape,q", "dismiss(False)", "No"),
    ]

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def compose(self) -> ComposeResult:
        """Put the question into the box."""
        with Vertical():
            yield Static(f"{self._words}\n\ny  yes      n  no", markup=False)


class KeyHelp(ModalScreen[None]):
    """All keys and what they do."""

    DEFAULT_CSS = _BOX.format(name="KeyHelp")
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark", "dismiss", "Close")]

    def __init__(self, keys: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._words = "\n".join(f"{key:<12}{what}" for key, what in keys)

    def compose(self) -> ComposeResult:
        """Put the keys into the box."""
        with Vertical(), VerticalScroll():
            yield Static(self._words, markup=False)


class ColumnChoice(ModalScreen[frozenset[str]]):
    """Which columns are shown."""

    DEFAULT_CSS = _BOX.format(name="ColumnChoice") + "ColumnChoice SelectionList { width: 30; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,c", "close", "Close")]

    def __init__(self, names: Iterable[str], shown: frozenset[str]) -> None:
        super().__init__()
        self._list = SelectionList(*(Selection(name, name, name in shown) for name in names))

    def compose(self) -> ComposeResult:
        """Put the list into the box."""
        with Vertical():
            yield Static("space: show or hide; escape: done", markup=False)
            yield self._list

    def action_close(self) -> None:
        """Take over what is chosen."""
        self.dismiss(frozenset(self._list.selected))
