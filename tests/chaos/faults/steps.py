"""The same mishaps, to runs whose steps are jobs of their own: run worker and step are both hit."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.fault import Fault
from tests.chaos.faults import agent, control_plane, controller, hosts, nodes

GROUP = "steps are jobs of their own"
_NAMES = (
    "kill at random",
    "SIGTERM",
    "agent away",
    "control plane killed",
    "slurmctld killed",
    "relay unreachable",
    "node down, resubmit",
)
_SHORT = frozenset({"kill at random"})

FAULTS: tuple[Fault, ...] = tuple(
    replace(
        fault,
        name=f"{fault.name}, in steps",
        group=GROUP,
        in_steps=True,
        short=fault.name in _SHORT,
        stock=False,
    )
    for fault in (
        *agent.FAULTS,
        *control_plane.FAULTS,
        *controller.FAULTS,
        *hosts.FAULTS,
        *nodes.FAULTS,
    )
    if fault.name in _NAMES
)
