"""The table of jobs: the cursor stays on its job while rows come and go."""

from __future__ import annotations

from collections.abc import Sequence

from textual.widgets import DataTable

from hpc_agent.cli.table import lay_out
from hpc_agent.cli.top.view import Row, View

_PADDING = 1


class Listing(DataTable[object]):
    """One line a row, as wide as the screen."""

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=_PADDING)
        self._rows: list[Row] = []

    @property
    def chosen(self) -> Row | None:
        """The row under the cursor, None without rows."""
        return self._rows[self.cursor_row] if self._rows else None

    def show(self, view: View, rows: Sequence[Row]) -> None:
        """Show rows in the place of the earlier ones."""
        chosen, at, top = self.chosen, self.cursor_row, self.scroll_y
        headings, *lines = lay_out(view.columns, rows, self.app.size.width - 2 * _PADDING)
        with self.app.batch_update():
            self.clear(columns=True)
            self.add_columns(*headings)
            for line in lines:
                self.add_row(*line)
            self._rows = list(rows)
            keys = [row["key"] for row in rows]
            if chosen is not None and chosen["key"] in keys:
                at = keys.index(chosen["key"])
            self.move_cursor(row=min(at, max(len(keys) - 1, 0)))
            self.scroll_to(y=top, animate=False)
