"""``hpc-agent docs``: the manual in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from hpc_agent.cli.arguments import JsonOption
from hpc_agent.cli.output import is_terminal, print_json, print_line
from hpc_agent.cli.table import print_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(docs)


def docs(
    context: typer.Context,
    page: Annotated[
        str, typer.Argument(help="Its name, or the last part of it, as --list shows it.")
    ] = "index",
    show_list: Annotated[bool, typer.Option("--list", help="List all pages.")] = False,
    json: JsonOption = False,
) -> None:
    """Open a page of the manual; in a pipe, print it as Markdown."""
    from hpc_agent.cli.pager import page_through
    from hpc_agent.manual.library import find, library

    pages = library(context.find_root().command)
    if show_list or json:
        rows = [{"page": each.name, "title": each.title} for each in pages.values()]
        if json:
            print_json(rows)
        else:
            print_table(["page", "title"], rows)
        return
    text = find(pages, page).text
    if is_terminal():
        page_through(text)
    else:
        print_line(text.rstrip("\n"))
