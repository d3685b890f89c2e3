"""What a job prints, as it comes."""

from __future__ import annotations

import codecs
import re

from textual.widgets import Log

from hpc_agent.cli.output import printable

_MOST_LINES = 2000
# Colours and movements of the cursor (ECMA-48, 5.4), and titles of windows.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


class OutputPage(Log):
    """The end of one stream."""

    def __init__(self) -> None:
        super().__init__(max_lines=_MOST_LINES)
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def begin(self) -> None:
        """Begin with another stream."""
        self.clear()
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def add(self, piece: bytes) -> None:
        """Show what has come; a reader who has scrolled back stays there."""
        if piece:
            self.write(as_lines(self._decode(piece)), scroll_end=self.is_vertical_scroll_end)


def as_lines(text: str) -> str:
    """Return a text as a terminal leaves it: without codes, of a progress bar the last state."""
    lines = _ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(
        printable(line.rstrip("\r").rpartition("\r")[2].expandtabs()) for line in lines
    )
