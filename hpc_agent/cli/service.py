"""``hpc-agent service install | uninstall``: keep agent or control plane running."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_agent.cli.output import print_line
from hpc_agent.errors import HpcAgentError, UsageError

if TYPE_CHECKING:
    from hpc_agent.service.outcome import Outcome
    from hpc_agent.service.ways import Way

app = typer.Typer(
    no_args_is_help=True,
    help="Keep the agent, or a control plane, running: by systemd, cron, or as a Slurm job.",
)

AgentConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The agent's configuration file (agent.yaml).")
]
ControlPlaneOption = Annotated[
    Path | None,
    typer.Option("--control-plane", help="Its home: the control plane instead of the agent."),
]
SystemOption = Annotated[
    bool, typer.Option("--system", help="A system unit with a sandbox, for administrators.")
]
RootOption = Annotated[
    Path, typer.Option("--root", help="With --system: the root directory to write below.")
]
CrontabOption = Annotated[
    bool, typer.Option("--crontab", help="Lines of your crontab, where there is no systemd.")
]
SlurmJobOption = Annotated[
    bool,
    typer.Option(
        "--slurm-job",
        help="The agent as a job that submits its successor: for sites that forbid processes that "
        "stay on login nodes.",
    ),
]
DEFAULT_CONFIG = Path("~/.config/hpc-agent/agent.yaml")


@app.command()
def install(
    *,
    config: AgentConfigOption = DEFAULT_CONFIG,
    control_plane: ControlPlaneOption = None,
    system: SystemOption = False,
    account: Annotated[
        str | None, typer.Option("--as", help="With --system: the user that it runs as.")
    ] = None,
    root: RootOption = Path("/"),
    crontab: CrontabOption = False,
    slurm_job: SlurmJobOption = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", help="With --slurm-job: partition=long, time=7-00:00:00, mem=1G, …"
        ),
    ] = None,
    writes: Annotated[
        list[Path] | None,
        typer.Option("--write", help="With --system: one more directory that it may write to."),
    ] = None,
    any_host: Annotated[
        bool,
        typer.Option(
            "--any-host", help="Let every machine that shares this home directory start it."
        ),
    ] = False,
    no_limits: Annotated[
        bool,
        typer.Option("--no-limits", help="Set no memory and CPU limits (for the local scheduler)."),
    ] = False,
    token_credential: Annotated[
        Path | None,
        typer.Option(
            "--token-credential",
            help="Have systemd hand the agent its token from this file (LoadCredential=); "
            "agent.yaml then needs no token_file.",
        ),
    ] = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print what would be written, and write nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that hpc-agent did not write.")
    ] = False,
) -> None:
    """Write what starts it, and print the commands that come next; nothing is started.

    Without --system, --crontab or --slurm-job it is a systemd unit of your own.
    """
    from hpc_agent.service.program import agent_program, control_plane_program
    from hpc_agent.service.ways import Wish, install_service, text_of

    way = _way(system=system, crontab=crontab, slurm_job=slurm_job)
    more = tuple(each.expanduser().absolute() for each in writes or ())
    if control_plane is not None:
        program = control_plane_program(control_plane)
    else:
        # Only the sandbox has to know more than that the file is there.
        filled = _filled(config) if system else ()
        program = agent_program(config, writes=filled)
    wish = Wish(
        program=replace(program, writes=(*program.writes, *more)),
        directory=_directory(config, control_plane),
        host=None if any_host else socket.gethostname(),
        limited=not no_limits,
        token_credential=token_credential and token_credential.expanduser().absolute(),
        root=root,
        account=account,
        options=_options(option or []),
    )
    if only_print:
        print_line(text_of(way, wish).rstrip("\n"))
        return
    outcome = install_service(way, wish, force=force)
    print_line(f"{outcome.path}: {'written' if outcome.changed else 'already up to date'}")
    _print_next(outcome)


@app.command()
def uninstall(
    *,
    config: AgentConfigOption = DEFAULT_CONFIG,
    control_plane: ControlPlaneOption = None,
    system: SystemOption = False,
    root: RootOption = Path("/"),
) -> None:
    """Remove what `install` has written, by whichever way; what runs goes on until it is stopped.

    A system unit is removed with --system.
    """
    from hpc_agent.service.program import Kind
    from hpc_agent.service.ways import uninstall_service

    kind = Kind.AGENT if control_plane is None else Kind.CONTROL_PLANE
    directory = _directory(config, control_plane)
    outcomes = uninstall_service(kind, directory, system_root=root if system else None)
    for outcome in outcomes:
        print_line(f"{outcome.path}: removed")
        _print_next(outcome)
    if not any(outcome.changed for outcome in outcomes):
        print_line("nothing is installed")
    print_line(f"Left as it is: {', '.join(map(str, _left(config, control_plane)))}")


def _way(*, system: bool, crontab: bool, slurm_job: bool) -> Way:
    from hpc_agent.service.ways import Way

    named = {"--system": system, "--crontab": crontab, "--slurm-job": slurm_job}
    ways = dict(zip(named, (Way.SYSTEM, Way.CRONTAB, Way.SLURM_JOB), strict=True))
    chosen = [name for name, is_chosen in named.items() if is_chosen]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other")
    return ways[chosen[0]] if chosen else Way.USER


def _directory(config: Path, control_plane: Path | None) -> Path:
    """Return where the scripts of cron and Slurm go."""
    return (control_plane or config.expanduser().parent).expanduser().absolute()


def _filled(config: Path) -> tuple[Path, ...]:
    """Return the directories that the agent fills. Raises ConfigError."""
    from hpc_agent.config import load_config

    settings = load_config(config.expanduser())
    filled = (settings.home, settings.work_dir, settings.artifacts_directory)
    return tuple(dict.fromkeys(filled))


def _left(config: Path, control_plane: Path | None) -> list[Path]:
    """Return what is no part of a service: configuration, state, job directories."""
    if control_plane is not None:
        return [control_plane]
    try:
        return [config.expanduser(), *_filled(config)]
    except HpcAgentError:
        return [config.expanduser()]


def _options(named: list[str]) -> dict[str, str]:
    options = {}
    for each in named:
        name, equals, value = each.partition("=")
        if not equals or not name.replace("-", "").isalpha():
            raise UsageError(f"--option {each!r}: write NAME=VALUE, such as partition=long")
        options[name] = value
    return options


def _print_next(outcome: Outcome) -> None:
    if outcome.next_steps:
        print_line("Next:")
    for step in outcome.next_steps:
        print_line(f"  {step}")
