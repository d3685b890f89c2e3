"""``hpc-agent pool list | explain | resume``: warm pools, and why they are as they are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption, WatchOption
from hpc_agent.cli.jobs import short_id
from hpc_agent.cli.output import print_json, print_line
from hpc_agent.cli.table import Column, print_table
from hpc_agent.cli.times import time_of
from hpc_agent.cli.watching import show
from hpc_agent.store.commands import CommandKind

app = typer.Typer(help="Warm pools: allocations that many runs live in.", no_args_is_help=True)

PoolArgument = Annotated[str, typer.Argument(help="A pool of agent.yaml.")]
POOLS = (
    Column("pool"),
    Column("allocations"),
    Column("slots"),
    Column("busy"),
    Column("waiting"),
    Column("why", elastic=True),
)
_RUNS = (
    Column("run_id", "run", short=short_id),
    Column("step"),
    Column("location"),
    Column("since", short=time_of),
    Column("state", elastic=True),
)
_DECISIONS = (Column("at", short=time_of), Column("words", "decision", elastic=True))


@app.command("list")
def list_(
    *, config: ConfigOption = None, json: JsonOption = False, watch: WatchOption = None
) -> None:
    """List the pools."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.pools import read_pools

    settings = load_config(config)

    def once() -> None:
        rows = read_pools(settings)
        if json:
            print_json(rows)
        elif rows:
            print_table(POOLS, rows)
        else:
            print_line("There is no pool: agent.yaml has no section `pools`.")

    show(once, watch)


@app.command()
def explain(
    pool: PoolArgument,
    *,
    config: ConfigOption = None,
    json: JsonOption = False,
    decisions: Annotated[int, typer.Option(min=0, help="So many of the last decisions.")] = 30,
) -> None:
    """Say all about a pool: its allocations, what lives and waits in it, and each decision."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.pools import read_pool

    found = read_pool(load_config(config), pool, decisions=decisions)
    if json:
        print_json(found)
        return
    print_table(POOLS, [found])
    for allocation in found["allocations"]:
        _print_allocation(allocation)
    if found["waiting_runs"]:
        print_line("\nWaiting for a slot:")
        print_table(_RUNS, found["waiting_runs"])
    if found["decisions"]:
        print_line("\nDecisions:")
        print_table(_DECISIONS, found["decisions"])


@app.command()
def resume(pool: PoolArgument, *, config: ConfigOption = None) -> None:
    """Let a pool start allocations again, after those that failed were mended."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.operate import carry_out

    print_line(carry_out(load_config(config), CommandKind.RESUME_POOL, {"pool": pool}))


def _print_allocation(allocation: dict[str, Any]) -> None:
    leaving = "; takes nothing more" if allocation["is_leaving"] else ""
    print_line(f"\n{allocation['key']}: {allocation['state']}{leaving}")
    for each in allocation["supervisors"]:
        print_line(f"  {each['hostname']}: {each['slots']} slots")
        for name, template in each["templates"].items():
            memory = f", {template['memory_mb']:.0f} MB" if template.get("memory_mb") else ""
            words = f": {template['words']}" if template.get("words") else ""
            print_line(f"    template {name}: {template['state']}{memory}{words}")
    if allocation["runs"]:
        print_table(_RUNS, allocation["runs"])
