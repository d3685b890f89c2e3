"""What a user may do: look, operate, or everything. Decided on the calls of a GraphQL document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from hpc_agent.errors import ControlPlaneRefusedError

LAUNCHES = frozenset({
    "launchMultipleRuns", "launchPartitionBackfill", "launchPipelineExecution",
    "launchPipelineReexecution", "launchRun", "launchRunReexecution", "reexecutePartitionBackfill",
    "resumePartitionBackfill",
})  # fmt: skip
TERMINATIONS = frozenset({
    "cancelPartitionBackfill", "terminatePipelineExecution", "terminateRun", "terminateRuns",
})  # fmt: skip
OPERATIONS = LAUNCHES | TERMINATIONS | {
    "addDynamicPartition", "freeConcurrencySlots", "freeConcurrencySlotsForRun", "logTelemetry",
    "refreshComponentState", "reloadRepositoryLocation", "reloadWorkspace",
    "reportAssetCheckEvaluations", "reportRunlessAssetEvents", "resetSchedule", "resetSensor",
    "scheduleDryRun", "sensorDryRun", "setAutoMaterializePaused", "setNuxSeen", "setSensorCursor",
    "startSchedule", "startSensor", "stopRunningSchedule", "stopSensor",
}  # fmt: skip
HARMLESS = frozenset({"markCliEvent"})
"""``dagster-cloud`` tells with it that it is used; nothing is done (graphql/commands.py)."""


class Role(StrEnum):
    """Of a user; each may what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Tell whether this role is enough where ``needed`` is asked for."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


def role_for(mutations: Iterable[str]) -> Role:
    """Return the least role that may call all of these mutations.

    Whatever is not known here is an admin's: a new release of Dagster may bring anything.
    """
    needed = Role.VIEWER
    for name in mutations:
        if name in OPERATIONS and needed is Role.VIEWER:
            needed = Role.OPERATOR
        elif name not in OPERATIONS | HARMLESS:
            needed = Role.ADMIN
    return needed


def check(role: Role, mutations: Sequence[str]) -> None:
    """Raise RoleLackingError when this role may not call these mutations."""
    needed = role_for(mutations)
    if not role.covers(needed):
        raise RoleLackingError(f"your role is {role}: {', '.join(mutations)} needs {needed}")


class RoleLackingError(ControlPlaneRefusedError):
    """A user's role does not allow what was asked for."""
