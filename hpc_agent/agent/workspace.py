"""The workspace loop: which code locations there should be, and the servers that make them so."""

from __future__ import annotations

import logging

from hpc_agent.agent.context import Context
from hpc_agent.agent.loop import Crew
from hpc_agent.code_servers.bring_up import BringUp
from hpc_agent.code_servers.fleet import Berth, Fleet
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.serdes import dumps, error_info
from hpc_agent.jobs.wording import describe
from hpc_agent.store.code_servers import ServerStatus

log = logging.getLogger(__name__)

# CHECK_WORKSPACE_INTERVAL_SECONDS of the stock agent.
INTERVAL_SECONDS = 5.0


class WorkspaceLoop:
    """Reconciles the fleet and looks after servers that are starting."""

    def __init__(self, context: Context, fleet: Fleet, bring_up: BringUp, crew: Crew) -> None:
        self._context = context
        self._fleet = fleet
        self._bring_up = bring_up
        self._crew = crew

    async def step(self) -> float:
        """Ask what is desired, reconcile, start the tasks that follow from it."""
        deployments = await agent_calls.workspace_entries(
            self._context.api, self._context.config.control_plane.deployments
        )
        for berth in await self._fleet.reconcile(deployments):
            self._look_after(berth)
        return INTERVAL_SECONDS

    def _look_after(self, berth: Berth) -> None:
        server = berth.server
        if server is None:
            return
        if server.status is ServerStatus.STARTING:
            self._crew.start(f"code server {server.key}", self._bring_up.run(server))
        elif server.status is ServerStatus.SERVING and _is_lost_there(berth):
            self._crew.start(f"upload {server.key}", self._bring_up.upload_again(server))
        elif server.status is ServerStatus.FAILED and not berth.entry.has_load_error:
            words = describe(berth.job) if berth.job else "it failed"
            error = server.error or dumps(error_info(f"code server: {words}"))
            self._crew.start(f"error {server.key}", self._bring_up.tell_error(server, error))


def _is_lost_there(berth: Berth) -> bool:
    """Whether the control plane shows an error, or old definitions, of what serves well here."""
    return berth.entry.has_load_error or berth.entry.has_outdated_data
