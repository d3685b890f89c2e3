"""``hpc-agent init``: from a login node to a checked agent.yaml."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hpc_agent.cli.arguments import JsonOption
from hpc_agent.cli.doctor import is_ready, print_results
from hpc_agent.cli.output import EXIT_FAILURE, print_json, print_line

if TYPE_CHECKING:
    from hpc_agent.config import AgentConfig
    from hpc_agent.doctor.examination import Result
    from hpc_agent.service.outcome import Outcome
    from hpc_agent.setup.interview import Asker, Question

ServiceName = Literal["none", "systemd", "crontab", "slurm-job"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(init)


def init(
    *,
    config: Annotated[Path, typer.Option("--config", "-c", help="The file to write.")] = Path(
        "~/.config/hpc-agent/agent.yaml"
    ),
    url: Annotated[str | None, typer.Option(help="Address of the control plane.")] = None,
    deployment: Annotated[str | None, typer.Option(help="Deployment that it serves.")] = None,
    ca_bundle: Annotated[
        Path | None, typer.Option(help="CA certificate of a self-hosted control plane.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the agent token. [default: token beside the configuration, made from "
            "what you type or from $DAGSTER_CLOUD_AGENT_TOKEN]"
        ),
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Directory for jobs that compute nodes see.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Directory for the agent's state, on a local disk.")
    ] = None,
    python: Annotated[
        Path | None, typer.Option(help="Python with dagster and dagster-cloud.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Partition of jobs.")] = None,
    account: Annotated[str | None, typer.Option(help="Account of jobs.")] = None,
    qos: Annotated[str | None, typer.Option(help="QOS of jobs.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Without Slurm: jobs are processes of this machine.")
    ] = False,
    service: Annotated[
        ServiceName | None, typer.Option(help="What keeps the agent running.")
    ] = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Submit no job that looks at a compute node.")
    ] = False,
    non_interactive: Annotated[
        bool, typer.Option("--non-interactive", help="Ask nothing: take the defaults.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file, and keep the old one as .bak.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Look at this login node, ask what cannot be found, write agent.yaml, and examine the site.

    Exit code 0 when the agent is ready to start, 1 when `hpc-agent doctor` has a problem.
    """
    from hpc_agent.doctor.control_plane import gather_control_plane
    from hpc_agent.doctor.report import rows
    from hpc_agent.setup import agent_file
    from hpc_agent.setup.interview import Nobody, interview
    from hpc_agent.setup.surroundings import look_around
    from hpc_agent.setup.token_file import TokenFile

    path = config.expanduser().absolute()
    agent_file.require_free(path, force=force)
    terminal = None if non_interactive or json or not sys.stdin.isatty() else _Terminal()
    asker: Asker = terminal or Nobody()
    _say("Looking at this machine …")
    found = asyncio.run(look_around())
    _say("\n".join(f"  {line}" for line in found.lines))
    given = {
        "url": url, "deployment": deployment, "ca-bundle": _text(ca_bundle),
        "work-dir": _text(work_dir), "home": _text(home), "python": _text(python),
        "partition": partition, "account": account, "qos": qos,
    }  # fmt: skip
    answers = interview(found, given, asker, is_local=local)
    token = TokenFile(path.parent, token_file, terminal)
    token.settle(os.environ)
    text = agent_file.render(answers, token.path)
    settings = agent_file.parsed(text, source=str(path))
    while error := asyncio.run(gather_control_plane(settings)).error:
        _say(f"The control plane: {error}")
        if not token.is_typed_again():
            break
    kept = agent_file.write(path, text)
    _say(f"{path}: written" + (f"; the old one is {kept}" if kept else ""))
    installed = _install(_service_name(service, terminal), path)
    results = _examine(path, with_probe=not no_probe)
    if json:
        print_json(
            {
                "config": str(path),
                "kept": _text(kept),
                "token_file": str(token.path),
                "service": str(installed.path) if installed else None,
                "ready": is_ready(results),
                "doctor": rows(results),
            }
        )
    else:
        print_results(results)
        _print_end(settings, path, installed, is_ready=is_ready(results))
    if not is_ready(results):
        raise typer.Exit(EXIT_FAILURE)


class _Terminal:
    """A person who is asked until the answer is good."""

    def ask(self, question: Question) -> str:
        for number, choice in enumerate(question.choices, 1):
            _say(f"  {number}) {choice}")
        while True:
            answer = str(typer.prompt(question.text, question.default, err=True)).strip()
            if answer.isdigit() and 1 <= int(answer) <= len(question.choices):
                answer = question.choices[int(answer) - 1]
            if (fault := question.fault(answer)) is None:
                return answer
            _say(f"  {fault}")

    def secret(self, text: str) -> str:
        return str(typer.prompt(text, hide_input=True, err=True))

    def agrees(self, text: str) -> bool:
        return typer.confirm(text, default=False, err=True)


def _service_name(given: ServiceName | None, terminal: _Terminal | None) -> str:
    from hpc_agent.setup.interview import Question

    if given is not None or terminal is None:
        return given or "none"
    names = ("none", "systemd", "crontab", "slurm-job")
    has_systemd = Path("/run/systemd/system").is_dir()
    return terminal.ask(
        Question(
            option="service",
            text="What keeps the agent running",
            default="systemd" if has_systemd else "none",
            choices=names,
            fault=lambda name: None if name in names else f"one of {', '.join(names)}",
        )
    )


def _install(name: str, config: Path) -> Outcome | None:
    import socket

    from hpc_agent.service.program import agent_program
    from hpc_agent.service.ways import Way, Wish, install_service

    ways = {"systemd": Way.USER, "crontab": Way.CRONTAB, "slurm-job": Way.SLURM_JOB}
    if name not in ways:
        return None
    wish = Wish(program=agent_program(config), directory=config.parent, host=socket.gethostname())
    return install_service(ways[name], wish)


def _examine(path: Path, *, with_probe: bool) -> Sequence[Result]:
    from hpc_agent.config import load_config
    from hpc_agent.doctor.examination import Wish, examine

    return asyncio.run(examine(load_config(path), Wish(with_probe=with_probe), say=_say))


def _print_end(
    settings: AgentConfig, path: Path, installed: Outcome | None, *, is_ready: bool
) -> None:
    print_line("")
    if not is_ready:
        print_line(f"Not ready: mend the problems above, in {path} or at the site, and run")
        print_line(f"  hpc-agent doctor --config {path}")
        return
    print_line(f"Ready to take work from {settings.control_plane.url}. Next:")
    steps = installed.next_steps if installed else (f"hpc-agent start --config {path}",)
    for step in steps:
        print_line(f"  {step}")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser())


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
