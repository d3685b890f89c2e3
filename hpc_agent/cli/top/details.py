"""What is known of one job, below the list of them: its output, its explanation, its partitions."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Log, TabbedContent, TabPane

from hpc_agent.cli.explain import print_page
from hpc_agent.cli.table import Column, print_table
from hpc_agent.cli.times import time_of
from hpc_agent.cli.top.output_page import OutputPage
from hpc_agent.config import AgentConfig
from hpc_agent.files import Files
from hpc_agent.inspection.explanation import read_explanation
from hpc_agent.inspection.outputs import Tail
from hpc_agent.inspection.partitions import read_partitions

_LAST_BYTES = 1 << 16
_STREAMS = ("stdout", "stderr")
_PARTITIONS = (
    Column("partition", elastic=True),
    Column("running", "running"),
    Column("waiting", "waiting"),
    Column("in_line", "all in line"),
    Column("idle_nodes", "idle nodes"),
    Column("nodes", "of"),
    Column("idle_cpus", "idle CPUs"),
    Column("cpus", "of"),
    Column("seen_at", "as of", short=time_of),
)
_NO_NODES = "\nNobody has looked at what is free yet (agent.yaml, scheduler.partitions_seconds)."
TABS: Sequence[str] = (*_STREAMS, "explain", "partitions")


class Details(Vertical):
    """Pages of which one is shown, and only that one is read."""

    DEFAULT_CSS = "Details TabPane { padding: 0; } Details Log { height: 1fr; }"

    def __init__(self, config: AgentConfig, files: Files) -> None:
        super().__init__()
        self._config = config
        self._files = files
        self._key: str | None = None
        self._tails: Mapping[str, Tail] = {}
        self._outputs = {stream: OutputPage() for stream in _STREAMS}
        texts = {name: Log(auto_scroll=False) for name in TABS if name not in _STREAMS}
        self._pages: Mapping[str, Log] = {**self._outputs, **texts}
        self._tabs = TabbedContent()

    def compose(self) -> ComposeResult:
        """Make a page for each tab."""
        with self._tabs:
            for number, (name, page) in enumerate(self._pages.items(), start=1):
                with TabPane(f"{number} {name}", id=name):
                    yield page

    def open(self, name: str) -> None:
        """Show another page."""
        self._tabs.active = name

    def focus_page(self) -> None:
        """Let the keys scroll the page."""
        self._pages[self._tabs.active].focus()

    async def show(self, key: str | None) -> None:
        """Show the page of a job as it stands. Raises HpcAgentError."""
        if key != self._key:
            self._begin(key)
        name = self._tabs.active
        if name == "partitions":
            self._put(name, await self._printed(self._print_partitions))
        elif key is None:
            self._put(name, "")
        elif name == "explain":
            self._put(name, await self._printed(lambda console: self._explain(key, console)))
        elif name in self._outputs:
            piece = await asyncio.to_thread(self._tails[name].read)
            self._outputs[name].add(piece)

    async def tell(self, words: str) -> None:
        """Show words in the place of what the page had."""
        text = await self._printed(lambda console: console.print(words, markup=False))
        self._put(self._tabs.active, text)

    def _begin(self, key: str | None) -> None:
        self._key = key
        for page in self._outputs.values():
            page.begin()
        self._tails = {
            stream: Tail(self._config, self._files, key, stream, last_bytes=_LAST_BYTES)
            for stream in _STREAMS
            if key is not None
        }

    def _put(self, name: str, text: str) -> None:
        """Show a text in the place of an earlier one, and scroll only as its reader does."""
        page = self._pages.get(name)
        if page is None or "\n".join(page.lines) == text:
            return
        at = page.scroll_y
        page.clear().write(text, scroll_end=False)
        page.scroll_to(y=at, animate=False)

    async def _printed(self, print_to: Callable[[Console], None]) -> str:
        """Return what is printed to a terminal of the page's width, without colours."""
        text = io.StringIO()
        console = Console(
            file=text,
            width=max(self.size.width - 2, 20),
            force_terminal=True,
            color_system=None,
            highlight=False,
        )
        await asyncio.to_thread(print_to, console)
        return text.getvalue().rstrip("\n")

    def _explain(self, key: str, console: Console) -> None:
        print_page(read_explanation(self._config, key), console)

    def _print_partitions(self, console: Console) -> None:
        rows = read_partitions(self._config)
        print_table(_PARTITIONS, rows, console)
        if not any(row["seen_at"] for row in rows):
            console.print(_NO_NODES)
