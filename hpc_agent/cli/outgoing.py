"""``hpc-agent outgoing [retry | drop]``."""

from __future__ import annotations

from typing import Annotated

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption
from hpc_agent.cli.jobs import short_id
from hpc_agent.cli.output import print_json, print_line
from hpc_agent.cli.table import Column, print_table
from hpc_agent.cli.times import length_of

app = typer.Typer(
    help="What waits to be told to the control plane, and what it did not want.",
    invoke_without_command=True,
)

COLUMNS = (
    Column("id"),
    Column("state"),
    Column("what", elastic=True),
    Column("run", short=short_id),
    Column("age_seconds", "age", short=length_of, whole="{:.0f}".format),
    Column("size"),
    Column("reason", elastic=True),
)
IdsArgument = Annotated[
    list[str], typer.Argument(help="Ids of messages, as `hpc-agent outgoing` shows them.")
]


@app.callback()
def show(
    context: typer.Context,
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1)] = 50,
    json: JsonOption = False,
) -> None:
    """List the messages that wait and those that are set aside, with the reasons."""
    if context.invoked_subcommand is not None:
        context.obj = config
        return
    from hpc_agent.config import load_config
    from hpc_agent.inspection.outgoing import read_outgoing

    rows = read_outgoing(load_config(config).home, limit)
    if json:
        print_json(rows)
    elif not rows:
        print_line("Nothing waits, and nothing is set aside.")
    else:
        print_table(COLUMNS, rows)


@app.command()
def retry(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of messages that are set aside.")
    ] = None,
    config: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is set aside.")] = False,
) -> None:
    """Send messages again that are set aside; a running agent notices within seconds."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.outgoing import send_again

    if bool(ids) == everything:
        raise typer.BadParameter("give ids of messages, or --all")
    home = load_config(config or context.obj).home
    count = send_again(home, None if everything else ids)
    print_line(f"{count} to be sent again")


@app.command()
def drop(context: typer.Context, ids: IdsArgument, config: ConfigOption = None) -> None:
    """Forget messages for good, whether they are set aside or wait."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.outgoing import drop as forget

    print_line(f"{forget(load_config(config or context.obj).home, ids)} dropped")
