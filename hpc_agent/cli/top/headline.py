"""How the agent stands, in two lines above everything."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text
from textual.widgets import Static

from hpc_agent.cli.output import printable
from hpc_agent.inspection.status import AgentStatus


class Headline(Static):
    """The agent's state, what is shown, and what goes wrong."""

    DEFAULT_CSS = "Headline { height: 2; text-wrap: nowrap; text-overflow: ellipsis; }"

    def show(self, status: AgentStatus | None, view: str, *, trouble: str) -> None:
        """Show all of it; ``trouble`` is why nothing newer is there."""
        lines = [agent_line(status) if status else Text("Agent: unknown")]
        below = Text(f"NOT UP TO DATE: {trouble}", "bold red") if trouble else Text(view)
        below.plain = printable(below.plain)
        lines.append(below)
        self.update(Text("\n").join(lines))


def agent_line(status: AgentStatus) -> Text:
    """Return how an agent stands: what hinders its work first, since a line may be cut."""
    line = Text("Agent ")
    if status.running_on is None:
        line.append("does not run", "bold red")
    else:
        line.append(f"runs on {printable(status.running_on)}", "bold green")
    for hindrance in _hindrances(status):
        line.append("; ").append(printable(hindrance), "yellow")
    counts = ", ".join(f"{count} {phase}" for phase, count in status.jobs_by_phase.items())
    return line.append(f"; jobs: {counts or 'none'}; {printable(status.control_plane)}")


def _hindrances(status: AgentStatus) -> Iterable[str]:
    if status.draining_since is not None:
        yield "drains"
    if status.paused:
        yield f"paused: {', '.join(each['location'] for each in status.paused)}"
    if set_aside := status.messages_set_aside + status.events_set_aside:
        yield f"{set_aside} messages set aside"
    if waiting := status.messages_waiting + status.events_waiting:
        yield f"{waiting} messages to send"
    if status.avoided_nodes:
        yield f"left out: {', '.join(each['node'] for each in status.avoided_nodes)}"
    if status.unreadable:
        yield f"unreadable: {', '.join(status.unreadable)}"
