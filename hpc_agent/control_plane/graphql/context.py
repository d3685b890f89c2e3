"""What resolvers may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_agent.control_plane.store.tokens import Token

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from graphql import GraphQLResolveInfo

    from hpc_agent.control_plane.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """One GraphQL request: who asks, for which deployment, and what serves it."""

    services: Services
    token: Token
    deployment: str
    agent_id: str | None
    idempotency_key: str | None


def context(info: GraphQLResolveInfo) -> RequestContext:
    found: RequestContext = info.context
    return found


def instance(info: GraphQLResolveInfo) -> DagsterInstance:
    return context(info).services.instance


OK = {"ok": True}
