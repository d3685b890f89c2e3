"""Markdown in the terminal, through the user's pager."""

from __future__ import annotations

import os
import subprocess

from rich.console import Console
from rich.markdown import Markdown
from rich.pager import Pager, SystemPager

_WIDEST = 110


class _LessWithColours(Pager):
    """The user's $PAGER as it is, else less as it should be called, else what there is."""

    def show(self, content: str) -> None:
        if "PAGER" in os.environ:
            SystemPager().show(content)
            return
        try:
            subprocess.run(["less", "-FRX"], input=content, text=True, check=False)
        except FileNotFoundError:
            SystemPager().show(content)


def page_through(text: str) -> None:
    """Show Markdown page by page; what fits the screen is just printed."""
    console = Console()
    with console.pager(_LessWithColours(), styles="PAGER" not in os.environ):
        console.print(Markdown(text), width=min(console.width, _WIDEST))
