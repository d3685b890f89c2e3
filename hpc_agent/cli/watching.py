"""``--watch``: the same again and again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from rich.console import Console

from hpc_agent.cli.output import is_terminal, print_line


def show(once: Callable[[], None], every_seconds: float | None) -> None:
    """Show something once, or each so many seconds until Ctrl-C, on a terminal in one place."""
    if every_seconds is None:
        once()
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            if is_terminal():
                Console().clear()
            once()
            if not is_terminal():
                print_line("")
            time.sleep(every_seconds)
