"""The options that say which jobs a command is about: written once, on every command that lists."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any

import typer

from hpc_agent.cli.arguments import DeploymentOption, LocationOption, RunOption, SinceOption
from hpc_agent.cli.times import since_option
from hpc_agent.errors import UsageError
from hpc_agent.hints import did_you_mean
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.selection import ORDERS, Selection

_PHASES = tuple(phase.value for phase in Phase)
_STATES = (*_PHASES, *(state.value for state in JobState))


def _options(
    *,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also what is over.")] = False,
    location: LocationOption = None,
    deployment: DeploymentOption = None,
    run: RunOption = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            "-s",
            help="Only in this state: queued, running, ended, … or Slurm's (PENDING, TIMEOUT, …); "
            "may be given more than once.",
            show_default=False,
        ),
    ] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", "-p", help="Only in this partition.")
    ] = None,
    since: SinceOption = None,
    sort: Annotated[
        str, typer.Option("--sort", help=f"By what: {', '.join(ORDERS)}; the largest first.")
    ] = "created",
    reverse: Annotated[bool, typer.Option("--reverse", help="The smallest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1)] = 50,
) -> Selection:
    return Selection(
        location=location,
        deployment=deployment,
        run_id=run,
        states=[_known("--state", word, _STATES) for word in state or []],
        partition=partition,
        since=since_option(since),
        with_concluded=everything,
        order=_known("--sort", sort, ORDERS),
        ascending=reverse,
        limit=limit,
    )


def selects(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options in the place of its parameter ``asked``, a Selection.

    Raises UsageError, when it is called, for a word that means nothing.
    """
    of_command = inspect.signature(command, eval_str=True)
    of_options = inspect.signature(_options, eval_str=True)

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        options = {name: given.pop(name) for name in of_options.parameters}
        command(asked=_options(**options), **given)

    others = [each for each in of_command.parameters.values() if each.name != "asked"]
    parameters = [*others[:1], *of_options.parameters.values(), *others[1:]]
    # Both are what typer reads: functools.wraps has made them those of the command.
    vars(with_options)["__signature__"] = of_command.replace(
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    with_options.__annotations__ = {}
    return with_options


def _known(option: str, word: str, known: Collection[str]) -> str:
    """Return the word as it is known, in whichever case it was given."""
    for each in known:
        if each.lower() == word.lower():
            return each
    raise UsageError(
        f"{option}: there is no {word!r}{did_you_mean(word, known) or ';'} "
        f"there are: {', '.join(known)}"
    )
