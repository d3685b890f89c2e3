"""The workspace: the code locations that the control plane wants and this agent may serve."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpc_agent.code_servers.demand import Demand, Place
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.agent_calls import Deployment, WorkspaceEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which deployments are asked for; ``checks`` are those with outdated locations to upload."""

    deployments: Sequence[str]
    checks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeLocation:
    """A code location as the control plane wants it."""

    entry: WorkspaceEntry
    is_branch: bool

    @property
    def version(self) -> str:
        """What changes with each deploy."""
        return repr(self.entry.metadata_timestamp)


# Of more than so many, those that were said first may be said again.
_SKIPPED_REMEMBERED = 1000


class Workspace:
    """The last answer to the question what is to be served."""

    def __init__(self, config: AgentConfig, demand: Demand) -> None:
        self._config = config
        self._demand = demand
        self._skipped: dict[Place, None] = {}
        self._seen_outdated: dict[Place, str] = {}
        self.asked: frozenset[str] = frozenset()
        self.deployments: list[str] = []
        self.locations: Mapping[Place, CodeLocation] = {}

    def take_over(self, question: Question, answer: Iterable[Deployment]) -> None:
        """Replace what is known by the control plane's answer."""
        found = list(answer)
        self.asked = frozenset(question.deployments)
        self.deployments = [deployment.deployment_name for deployment in found]
        self.locations = {
            (deployment.deployment_name, entry.location_name): CodeLocation(
                entry=entry, is_branch=deployment.is_branch_deployment
            )
            for deployment in found
            for entry in deployment.workspace_entries
            if self._may_serve(deployment, entry)
        }
        self._seen_outdated = {
            place: version
            for place, version in self._seen_outdated.items()
            if place in self.locations
        }
        for place, location in self.locations.items():
            if self._wants_upload(place, location, question):
                self._demand.want_upload(place, is_branch=location.is_branch)
        self._demand.checked(question.checks)
        self._demand.keep_uploads(self.asked, self.locations.keys())

    def desired(self, *, starting: Collection[Place]) -> dict[Place, CodeLocation]:
        """Return the locations that should have a server; one that is on its way is waited for."""
        wanted = self._demand.wanted().union(starting)
        return {
            place: location
            for place, location in self.locations.items()
            if place in wanted or not self._demand.has_ttl(is_branch=location.is_branch)
        }

    def _wants_upload(self, place: Place, location: CodeLocation, question: Question) -> bool:
        """A check asks for it; in full deployments each version is uploaded once in any case."""
        if not location.entry.has_outdated_data:
            return False
        is_first = self._seen_outdated.get(place) != location.version
        self._seen_outdated[place] = location.version
        return place[0] in question.checks or (is_first and not location.is_branch)

    def _may_serve(self, deployment: Deployment, entry: WorkspaceEntry) -> bool:
        place = deployment.deployment_name, entry.location_name
        is_branch = deployment.is_branch_deployment
        if self._config.allows(*place, is_branch=is_branch):
            return True
        if place not in self._skipped:
            self._skipped[place] = None
            if len(self._skipped) > _SKIPPED_REMEMBERED:
                del self._skipped[next(iter(self._skipped))]
            log.error("skipping code location %s", not_allowed(*place, is_branch=is_branch))
        return False


def not_allowed(deployment: str, location: str, *, is_branch: bool) -> str:
    """Say that the allowed locations leave this one out, and what to do."""
    where = "for branch deployments" if is_branch else f"in deployment {deployment}"
    key = (
        "allowed_branch_deployment_locations" if is_branch else "allowed_full_deployment_locations"
    )
    return (
        f"{location} {where}: it is not in {key} of this agent's agent.yaml. Either add it there, "
        "or let the location's dagster_cloud.yaml name the queue of another agent"
    )
