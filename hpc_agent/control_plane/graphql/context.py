"""What resolvers may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_agent.control_plane.store.tokens import Token, TokenKind
from hpc_agent.errors import ControlPlaneRefusedError

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
    polls_anew: bool = False

    @property
    def is_user(self) -> bool:
        """Whether a person asks, or a script of one."""
        return self.token.kind is TokenKind.USER


def context(info: GraphQLResolveInfo) -> RequestContext:
    found: RequestContext = info.context
    return found


def deployer(info: GraphQLResolveInfo) -> RequestContext:
    """Return the context of somebody who may deploy. Raises ControlPlaneRefusedError."""
    request = context(info)
    if not request.is_user:
        raise ControlPlaneRefusedError(
            "deploying needs a user token: hpc-agent control-plane token create --kind user"
        )
    return request


def instance(info: GraphQLResolveInfo) -> DagsterInstance:
    return context(info).services.instance


OK = {"ok": True}
