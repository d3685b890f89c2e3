"""Faults that are played again where the runs live otherwise than in jobs of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tests.chaos.fault import Fault
from tests.chaos.faults import agent, control_plane, controller, hosts, nodes

_NAMES = (
    "kill at random",
    "SIGTERM",
    "agent away",
    "control plane killed",
    "slurmctld killed",
    "relay unreachable",
    "node down, resubmit",
)


def played_again(
    where: str,
    group: str,
    *,
    short: frozenset[str] = frozenset(),
    in_steps: bool = False,
    tags: Mapping[str, str] | None = None,
) -> tuple[Fault, ...]:
    """Return the faults that strike an agent, a control plane, Slurm and a node, for such runs."""
    everywhere = (
        *agent.FAULTS,
        *control_plane.FAULTS,
        *controller.FAULTS,
        *hosts.FAULTS,
        *nodes.FAULTS,
    )
    return tuple(
        replace(
            fault,
            name=f"{fault.name}, {where}",
            group=group,
            in_steps=in_steps,
            tags={**fault.tags, **(tags or {})},
            short=fault.name in short,
            stock=False,
        )
        for fault in everywhere
        if fault.name in _NAMES
    )
