"""``hpc-agent start | status``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption
from hpc_agent.cli.output import print_json, print_line
from hpc_agent.cli.table import print_table
from hpc_agent.cli.times import time_of


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(start)
    app.command()(status)


def start(
    config: ConfigOption = None,
    take_over_work_dir: Annotated[
        bool,
        typer.Option(
            "--take-over-work-dir",
            help="Take work_dir from another agent whose home is lost for good.",
        ),
    ] = False,
) -> None:
    """Run the agent in the foreground, until it is told to stop (Ctrl-C, SIGTERM).

    Jobs outlive the agent: the next start with the same home directory adopts them.
    """
    from hpc_agent.agent.daemon import run_agent, stop_on_signals
    from hpc_agent.config import load_config
    from hpc_agent.descriptors import raise_descriptor_limit
    from hpc_agent.journal.configuration import configure_journal

    settings = load_config(config)
    configure_journal(settings.logging.journal)
    raise_descriptor_limit()

    async def serve() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        await run_agent(settings, stop, take_over_work_dir=take_over_work_dir)

    asyncio.run(serve())


def status(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show how the agent stands: whether it runs, its code servers, its jobs."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.status import read_status

    found = read_status(load_config(config))
    if json:
        print_json(asdict(found))
        return
    where = f"runs on {found.running_on} (pid {found.pid})" if found.running_on else "does not run"
    print_line(f"Agent {found.agent_id} {where}; control plane {found.control_plane}")
    if found.draining_since is not None:
        print_line(
            f"Drains since {time_of(found.draining_since)}: it takes nothing new "
            "(`hpc-agent drain --off` ends that)"
        )
    for each in found.paused:
        where = f" of deployment {each['deployment']}" if each["deployment"] else ""
        print_line(
            f"Runs of {each['location']}{where} wait since {time_of(each['since'])} "
            "(`hpc-agent resume`)"
        )
    counts = ", ".join(f"{count} {phase}" for phase, count in found.jobs_by_phase.items())
    print_line(f"Jobs: {counts or 'none'}; messages to send: {found.messages_waiting}")
    if found.events_waiting:
        print_line(f"Event writes of jobs that wait for the control plane: {found.events_waiting}")
    if set_aside := found.messages_set_aside + found.events_set_aside:
        print_line(f"Set aside, since the control plane does not take them: {set_aside} messages")
        print_line("  (`hpc-agent outgoing` says why, and sends them again)")
    if found.artifacts.get("files"):
        print_line(artifacts_line(found.artifacts))
    for node in found.avoided_nodes:
        print_line(
            f"Node {node['node']} is left out until {time_of(node['avoided_until'])}, since it "
            f"ended {node['failures']} jobs in a row; the last one: {node['reason']}"
        )
    for command, texts in found.unreadable.items():
        print_line(f"{command} prints what is no record of a job (`hpc-agent doctor` says more):")
        for text in texts:
            print_line(f"  {text!r}")
    if found.code_servers:
        print_line("")
        print_table(["deployment", "location", "status", "job"], found.code_servers)


def artifacts_line(artifacts: Mapping[str, Any]) -> str:
    """Return how much the artifacts of runs take, counted within the last hour."""
    at_least = "" if artifacts["is_all"] else "more than "
    return (
        f"Artifacts of runs: {at_least}{artifacts['files']} files, "
        f"{artifacts['size_bytes'] / (1 << 20):,.1f} MiB in {artifacts['directory']}"
    )
