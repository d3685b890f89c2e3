"""``hpc-agent adopt | cancel | drain | gc | pause | resume``: what a running agent is asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption
from hpc_agent.cli.jobs import short_id
from hpc_agent.cli.output import EXIT_FAILURE, print_error, print_json, print_line
from hpc_agent.cli.table import Column, print_table
from hpc_agent.cli.times import seconds_of
from hpc_agent.errors import HpcAgentError, UsageError
from hpc_agent.store.commands import CommandKind

LocationArgument = Annotated[str, typer.Argument(help="A code location.")]
DeploymentOption = Annotated[
    str, typer.Option("--deployment", "-d", help="Only of this deployment; else of all.")
]
_LOOK_SECONDS = 2.0
ADOPTED = (
    Column("job_id", "job"),
    Column("state"),
    Column("run_id", "run", short=short_id),
    Column("is_adopted", "adopted", short=lambda adopted: "yes" if adopted else "no"),
    Column("why_not", "why not", elastic=True),
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(adopt)
    app.command()(cancel)
    app.command()(drain)
    app.command()(gc)
    app.command()(pause)
    app.command()(resume)


def adopt(
    jobs: Annotated[
        list[str] | None, typer.Argument(help="Ids of jobs; none: only list them.")
    ] = None,
    config: ConfigOption = None,
    all_: Annotated[bool, typer.Option("--all", help="All that can be adopted.")] = False,
    json: JsonOption = False,
) -> None:
    """List the jobs in the queue that are this agent's and that it does not know, or adopt them.

    There are some after its state was lost, or restored from an older backup. Of each that cannot
    be adopted it is said why.
    """
    from hpc_agent.config import load_config
    from hpc_agent.inspection.operate import adopt as take_over

    if jobs and all_:
        raise UsageError("adopt: give ids or --all, not both")
    rows = take_over(load_config(config), jobs or None, dry_run=not (jobs or all_))
    if json:
        print_json(rows)
    elif rows:
        print_table(ADOPTED, rows)
    else:
        print_line("No job in the queue is unknown.")
    if (jobs or all_) and not all(row["is_adopted"] for row in rows):
        raise typer.Exit(EXIT_FAILURE)


def cancel(
    names: Annotated[
        list[str], typer.Argument(help="Runs: ids or their beginnings, job ids or keys.")
    ],
    config: ConfigOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
) -> None:
    """End runs, as the button in the web UI does; they are told who did it."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.operate import cancel as end

    settings = load_config(config)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("cancel: nobody is here to be asked; --yes ends the runs all the same")
        typer.confirm(f"End {', '.join(names)}?", abort=True)
    is_any_left = False
    for name in names:
        try:
            print_line(end(settings, name))
        except HpcAgentError as error:
            print_error(str(error))
            is_any_left = True
    if is_any_left:
        raise typer.Exit(EXIT_FAILURE)


def drain(
    *,
    config: ConfigOption = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="And stop the agent when all is finished.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all is finished.")] = False,
    off: Annotated[bool, typer.Option("--off", help="Take requests again.")] = False,
) -> None:
    """Let the agent finish what it has taken, and take nothing new: before maintenance, or a move.

    What the control plane asks for meanwhile waits there, or is for another agent; only runs that
    are terminated are ended all the same. An agent that is started again goes on draining.
    """
    from hpc_agent.config import load_config
    from hpc_agent.inspection.operate import carry_out, read_left_to_finish

    if off and (stop or wait):
        raise UsageError("drain: --off goes with neither --stop nor --wait")
    settings = load_config(config)
    if off:
        print_line(carry_out(settings, CommandKind.ACCEPT, {}))
        return
    print_line(carry_out(settings, CommandKind.DRAIN, {"stop": stop}))
    if wait:
        _wait_until_finished(lambda: read_left_to_finish(settings))


def gc(
    *,
    config: ConfigOption = None,
    older_than: Annotated[
        str, typer.Option(help="How long a job must be over, for example 12h or 7d.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what is over: records and directories of old jobs, and directories of nobody.

    The agent does so by itself after 30 days. Artifacts have ``artifacts.keep_days``.
    """
    from hpc_agent.config import load_config
    from hpc_agent.inspection.operate import carry_out

    seconds = seconds_of("--older-than", older_than)
    subject = {"older_than_seconds": seconds, "dry_run": dry_run}
    print_line(carry_out(load_config(config), CommandKind.GC, subject))


def pause(
    location: LocationArgument, config: ConfigOption = None, deployment: DeploymentOption = ""
) -> None:
    """Let the runs of a code location wait, without failing them; its server goes on."""
    _change_pause(CommandKind.PAUSE, location, deployment, config)


def resume(
    location: LocationArgument, config: ConfigOption = None, deployment: DeploymentOption = ""
) -> None:
    """Submit the runs of a code location that were held back by ``pause``."""
    _change_pause(CommandKind.RESUME, location, deployment, config)


def _change_pause(kind: CommandKind, location: str, deployment: str, config: Any) -> None:
    from hpc_agent.config import load_config
    from hpc_agent.inspection.operate import carry_out

    subject = {"location": location, "deployment": deployment}
    print_line(carry_out(load_config(config), kind, subject))


def _wait_until_finished(left: Callable[[], dict[str, int]]) -> None:
    last: dict[str, int] = {}
    while found := left():
        if found != last:
            print_line("; ".join(f"{what}: {count}" for what, count in found.items()))
            last = found
        time.sleep(_LOOK_SECONDS)
    print_line("finished")
