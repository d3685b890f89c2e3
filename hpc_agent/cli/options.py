"""``hpc-agent options list | explain``."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption
from hpc_agent.cli.output import print_json, print_line
from hpc_agent.cli.table import Column, print_table

OPTIONS = (
    Column("option"),
    Column("value", elastic=True),
    Column("source", elastic=True),
    Column("overridden", elastic=True),
)
app = typer.Typer(help="Slurm options: what may be set, and who set it.", no_args_is_help=True)


@app.command("list")
def list_options(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The tables of docs/options.md.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the options that agent.yaml and tags may set."""
    from hpc_agent.jobs import options_page

    if json:
        print_json(options_page.rows())
    elif markdown:
        print_line(options_page.markdown())
    else:
        print_table(["option", "value", "example", "tag"], options_page.rows())


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="A run id, job id, key, or code location.")],
    config: ConfigOption = None,
    deployment: Annotated[
        str | None,
        typer.Option(help="Deployment of the code location; else the first that is served."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="A tag NAME=VALUE that runs of the location are to have; nothing runs."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show which source set which option: of a run or step as submitted, of a location as of now.

    Where partitions are chosen (runs.choose_partition), it also says which one, and why no other.
    """
    from hpc_agent.config import load_config
    from hpc_agent.inspection.options import explain as explained
    from hpc_agent.inspection.options import is_run, partitions_of

    settings = load_config(config)
    facts = None if is_run(settings, name) else asyncio.run(partitions_of(settings))
    found = explained(settings, name, deployment, tags=_tags(tag or []), partitions=facts)
    if json:
        print_json([asdict(each) for each in found])
        return
    for each in found:
        print_line(f"{each.title} ({each.deployment})")
        print_table(OPTIONS, with_older(each.settings))
        for note in each.notes:
            print_line(note)


def _tags(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        raise typer.BadParameter(f"--tag {wrong[0]}: give NAME=VALUE")
    return {name: value for name, _, value in pairs}


def with_older(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of settings, with the values that each has overridden as one text."""
    return [row | {"overridden": _older(row["overridden"])} for row in settings]


def _older(settings: list[dict[str, str]]) -> str:
    return ", ".join(f"{setting['value']} ({setting['source']})" for setting in settings)
