"""How an agent stands, in lines for people: the ordinary first, then what asks for somebody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpc_agent.cli.times import time_of
from hpc_agent.inspection.disks import Disk
from hpc_agent.inspection.status import AgentStatus

_LITTLE = 0.05
_GIB = 1 << 30
_MIB = 1 << 20


def status_lines(found: AgentStatus) -> Iterator[str]:
    """Yield the lines; what is as it should be has none, but for the first few."""
    where = f"runs on {found.running_on} (pid {found.pid})" if found.running_on else "does not run"
    yield f"Agent {found.agent_id or 'without an id yet'} {where}"
    yield f"Control plane: {found.control_plane}"
    counts = ", ".join(f"{count} {phase}" for phase, count in found.jobs_by_phase.items())
    yield f"Jobs: {counts or 'none'}; messages to send: {found.messages_waiting}"
    yield from _operators(found)
    if found.events_waiting:
        yield f"Event writes of jobs that wait for the control plane: {found.events_waiting}"
    if set_aside := found.messages_set_aside + found.events_set_aside:
        yield f"Set aside, since the control plane does not take them: {set_aside} messages"
        yield "  (`hpc-agent outgoing` says why, and sends them again)"
    if found.artifacts.get("files"):
        yield _artifacts(found.artifacts)
    for disk in found.disks:
        yield from _disk(disk)
    yield from _troubles(found)


def _operators(found: AgentStatus) -> Iterator[str]:
    if found.draining_since is not None:
        yield (
            f"Drains since {time_of(found.draining_since)}: it takes nothing new "
            "(`hpc-agent drain --off` ends that)"
        )
    for each in found.paused:
        where = f" of deployment {each['deployment']}" if each["deployment"] else ""
        since = time_of(each["since"])
        yield f"Runs of {each['location']}{where} wait since {since} (`hpc-agent resume`)"


def _troubles(found: AgentStatus) -> Iterator[str]:
    for each in found.stopped_pools:
        yield (
            f"Pool {each['pool']} is stopped since {time_of(each['since'])}: "
            f"{_line(each['reason'])} (`hpc-agent pool resume {each['pool']}`)"
        )
    for node in found.avoided_nodes:
        yield (
            f"Node {node['node']} is left out until {time_of(node['avoided_until'])}, since it "
            f"ended {node['failures']} jobs in a row; the last one: {node['reason']}"
        )
    for command, texts in found.unreadable.items():
        yield f"{command} prints what is no record of a job (`hpc-agent doctor` says more):"
        for text in texts:
            yield f"  {text!r}"
    for trouble in found.troubles:
        yield f"Since {time_of(trouble['since'])}, {trouble['loop']}: {_line(trouble['words'])}"
    if found.recent_errors:
        yield "Errors of the last day, the newest first:"
        for error in found.recent_errors:
            yield f"  {time_of(error['at'])} {_line(error['message'])}"


def _disk(disk: Disk) -> Iterator[str]:
    """Room is told where there is little, or where nobody can tell."""
    if disk.total_bytes is None or disk.free_bytes is None:
        yield f"The file system of {disk.what} does not answer, or is not there: {disk.path}"
    elif disk.free_bytes < disk.total_bytes * _LITTLE:
        room = f"{disk.free_bytes / _GIB:.1f} GiB, {disk.free_bytes / disk.total_bytes:.0%}"
        yield f"Little room for {disk.what}: {room}: {disk.path}"


def _artifacts(artifacts: Mapping[str, Any]) -> str:
    """How much the artifacts of runs take, counted within the last hour."""
    at_least = "" if artifacts["is_all"] else "more than "
    return (
        f"Artifacts of runs: {at_least}{artifacts['files']} files, "
        f"{artifacts['size_bytes'] / _MIB:,.1f} MiB in {artifacts['directory']}"
    )


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]
