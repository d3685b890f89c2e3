"""All faults of the rig, in the order of the page."""

from __future__ import annotations

from tests.chaos.fault import Fault
from tests.chaos.faults import (
    agent,
    commands,
    control_plane,
    controller,
    disks,
    hosts,
    nodes,
    pools,
    steps,
)
from tests.chaos.faults.mix import mix

_SINGLE = (
    *agent.FAULTS,
    *control_plane.FAULTS,
    *controller.FAULTS,
    *commands.FAULTS,
    *nodes.FAULTS,
    *disks.FAULTS,
    *hosts.FAULTS,
    *steps.FAULTS,
    *pools.FAULTS,
)
FAULTS: tuple[Fault, ...] = (*_SINGLE, mix(_SINGLE))


def named(names: list[str]) -> list[Fault]:
    """Return the faults of these names. Raises KeyError for one that there is not."""
    by_name = {fault.name: fault for fault in FAULTS}
    return [by_name[name] for name in names]
