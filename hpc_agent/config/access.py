"""What the jobs of a code location may ask of the control plane beyond their own affairs."""

from __future__ import annotations

from typing import Literal

from hpc_agent.config.section import Section

Reach = Literal["own", "deployment"]
Operation = Literal[
    "wipe_assets",
    "delete_run_events",
    "write_other_runs",
    "manage_pools",
    "write_any_definitions_state",
]


class Access(Section):
    """docs/security.md has the table of operations; what is None or not named is the general one.

    Sensors look for runs and events of others: code servers therefore read their whole deployment
    by default, run workers their own run, those it was started from, and assets.
    """

    run_workers_read: Reach | None = None
    code_servers_read: Reach | None = None
    allow: list[Operation] | None = None

    def over(self, general: Access) -> Access:
        """Return these settings, and more general ones where there are none."""
        return general.model_copy(update=self.model_dump(exclude_none=True))


DEFAULT_ACCESS = Access(run_workers_read="own", code_servers_read="deployment", allow=[])
