"""The screen of ``hpc-agent top``: two loops read what the agent has written down, keys change it.

Whatever blocks does so in a thread; at no time two of them read for the same part of the screen.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, TabbedContent

from hpc_agent.agent.loop import Bell
from hpc_agent.cli.jobs import short_id
from hpc_agent.cli.output import printable
from hpc_agent.cli.top.details import TABS, Details
from hpc_agent.cli.top.dialogs import ColumnChoice, KeyHelp, Question
from hpc_agent.cli.top.headline import Headline
from hpc_agent.cli.top.listing import Listing
from hpc_agent.cli.top.view import COLUMNS, MOST_ROWS, Row, View
from hpc_agent.config import AgentConfig
from hpc_agent.errors import HpcAgentError
from hpc_agent.files import Files
from hpc_agent.inspection.operate import cancel
from hpc_agent.inspection.status import AgentStatus, read_status

_NEVER = float("inf")


class Top(App[None]):
    """Jobs above, the chosen one below."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Listing { height: 1fr; }
    Details { height: 1fr; }
    .zoomed Listing { display: none; }
    #filter { display: none; border: none; height: 1; padding: 0; }
    #filter.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("a", "toggle_concluded", "All"),
        Binding("j", "toggle_kind", "Jobs"),
        Binding("s", "next_order", "Sort"),
        Binding("r", "reverse", "Reverse", show=False),
        Binding("c", "columns", "Columns"),
        Binding("p", "pause", "Pause"),
        Binding("x", "cancel", "Cancel"),
        Binding("z", "zoom", "Zoom", show=False),
        Binding("o", "scroll_output", "Scroll output", show=False),
        Binding("escape", "leave", "Back to the list", show=False),
        *(
            Binding(str(number), f"open('{name}')", f"Show {name}", show=False)
            for number, name in enumerate(TABS, start=1)
        ),
    ]

    def __init__(self, config: AgentConfig, files: Files, *, every_seconds: float) -> None:
        super().__init__()
        self._config = config
        self._every_seconds = every_seconds
        self._is_paused = False
        self._view = View()
        self._rows: Sequence[Row] = ()
        self._status: AgentStatus | None = None
        self._look, self._look_closer = Bell(), Bell()
        self._headline = Headline(markup=False)
        self._listing = Listing()
        self._details = Details(config, files)

    def compose(self) -> ComposeResult:
        """Put the parts below each other."""
        yield self._headline
        yield self._listing
        yield Input(id="filter", placeholder="words to filter by; enter keeps, escape clears them")
        yield self._details
        yield Footer()

    def on_mount(self) -> None:
        """Start to look."""
        self._listing.focus()
        self.run_worker(self._keep_listing())
        self.run_worker(self._keep_details())

    async def _keep_listing(self) -> None:
        while True:
            view, trouble = self._view, ""
            try:
                rows = await asyncio.to_thread(view.read, self._config)
                self._status = await asyncio.to_thread(read_status, self._config)
            except (HpcAgentError, sqlite3.Error) as error:
                trouble = str(error)
            else:
                self._rows = rows
            if view == self._view:
                self._show(trouble)
            await self._look.wait(self._pause)

    async def _keep_details(self) -> None:
        while True:
            chosen = self._listing.chosen
            try:
                await self._details.show(chosen["key"] if chosen else None)
            except (HpcAgentError, sqlite3.Error) as error:
                await self._details.tell(printable(str(error)))
            await self._look_closer.wait(self._pause)

    @property
    def _pause(self) -> float:
        return _NEVER if self._is_paused else self._every_seconds

    def _show(self, trouble: str = "") -> None:
        rows = self._view.filtered(self._rows)
        self._listing.show(self._view, rows)
        count = f"{len(rows)}{' or more' if len(self._rows) == MOST_ROWS else ''}"
        paused = "PAUSED  " if self._is_paused else ""
        words = f"{paused}{count} {self._view.describe()}"
        self._headline.show(self._status, words, trouble=trouble)
        self._look_closer.ring()

    def _change(self, **changes: Any) -> None:
        self._view = replace(self._view, **changes)
        self._look.ring()

    @on(DataTable.RowHighlighted)
    @on(TabbedContent.TabActivated)
    def look_closer(self) -> None:
        """Read what belongs to another job or page."""
        self._look_closer.ring()

    def action_help(self) -> None:
        """Show all keys."""
        bindings = [each for each in self.BINDINGS if isinstance(each, Binding)]
        keys = [(each.key_display or each.key, each.description) for each in bindings]
        self.push_screen(KeyHelp([*keys, ("tab", "Next part"), ("up, down, …", "Choose, scroll")]))

    def action_toggle_concluded(self) -> None:
        """Show what is over too, or no longer."""
        self._change(with_concluded=not self._view.with_concluded)

    def action_toggle_kind(self) -> None:
        """Show all jobs in the place of runs, or runs again."""
        self._change(is_of_jobs=not self._view.is_of_jobs)

    def action_next_order(self) -> None:
        """Sort by something else."""
        self._view = self._view.with_next_order()
        self._look.ring()

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._change(ascending=not self._view.ascending)

    def action_pause(self) -> None:
        """Let the screen stand still, or go on."""
        self._is_paused = not self._is_paused
        self._show()
        self._look.ring()

    def action_columns(self) -> None:
        """Choose columns."""

        def take(shown: frozenset[str] | None) -> None:
            if shown:
                self._change(shown=shown)

        self.push_screen(ColumnChoice(COLUMNS, self._view.shown), take)

    def action_filter(self) -> None:
        """Ask for words to filter by."""
        field = self.query_one("#filter", Input)
        field.add_class("open")
        field.focus()

    @on(Input.Changed, "#filter")
    def filter_rows(self, event: Input.Changed) -> None:
        """Show what has the words that are there so far."""
        self._view = replace(self._view, words=event.value)
        self._show()

    @on(Input.Submitted, "#filter")
    def keep_filter(self) -> None:
        """Go back to the list."""
        self._listing.focus()

    def action_leave(self) -> None:
        """Go back to the whole list."""
        field = self.query_one("#filter", Input)
        field.clear()
        field.remove_class("open")
        self.remove_class("zoomed")
        self._listing.focus()

    def action_open(self, name: str) -> None:
        """Show another page of the job."""
        self._details.open(name)

    def action_zoom(self) -> None:
        """Give the page the place of the list, or no longer."""
        self.toggle_class("zoomed")
        self._details.focus_page()

    def action_scroll_output(self) -> None:
        """Let the keys scroll the page."""
        self._details.focus_page()

    def action_cancel(self) -> None:
        """Ask, and let the agent end the run."""
        chosen = self._listing.chosen
        if chosen is None:
            return
        name = short_id(chosen["run_id"]) if chosen["run_id"] else chosen["key"]
        of = " of ".join(filter(None, [chosen["job_name"], chosen["location"]]))

        def end(is_wanted: bool | None) -> None:
            if is_wanted:
                self.run_worker(self._cancel(chosen["key"]))

        self.push_screen(Question(printable(f"End {name} ({of})?")), end)

    async def _cancel(self, key: str) -> None:
        try:
            said = await asyncio.to_thread(cancel, self._config, key)
        except (HpcAgentError, sqlite3.Error) as error:
            self.notify(printable(str(error)), severity="error", markup=False)
        else:
            self.notify(printable(said), markup=False)
        self._look.ring()
