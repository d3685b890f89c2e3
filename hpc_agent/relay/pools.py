"""The face of the pools: supervisors hear what to start, and say what they hold (docs/pools.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hpc_agent.errors import HpcAgentError
from hpc_agent.relay.bodies import Bodies
from hpc_agent.relay.gate import POOL_PATH, Gate
from hpc_agent.relay.identity import HostName, JobIdentity
from hpc_agent.relay.refusals import Refusal, unavailable
from hpc_agent.relay.step_requests import asked

LONGEST_WAIT_SECONDS = 30.0
_MOST_SLOTS = 10_000

_Key = Annotated[str, StringConstraints(pattern=r"^(run|stp)-[0-9a-f]{20}$")]
_TemplateId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]
_Words = Annotated[str, StringConstraints(max_length=4000)]


class TemplateState(BaseModel):
    """How a template of a supervisor stands."""

    model_config = ConfigDict(frozen=True)

    state: Literal["warming", "ready", "spares", "failed"]
    words: _Words = ""
    pid: int | None = None
    memory_mb: float | None = None
    imported_seconds: float | None = None


class Work(BaseModel):
    """What a supervisor says of itself; ``seen`` is the number of the last answer."""

    model_config = ConfigDict(frozen=True)

    node: Annotated[int, Field(ge=0, lt=100_000)]
    hostname: HostName = ""
    slots: Annotated[int, Field(ge=1, le=_MOST_SLOTS)]
    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT_SECONDS)] = 0.0
    seen: Annotated[int, Field(ge=0, lt=1 << 62)] = 0
    held: Annotated[list[_Key], Field(max_length=2 * _MOST_SLOTS)] = []
    is_leaving: bool = False
    templates: Annotated[dict[_TemplateId, TemplateState], Field(max_length=1000)] = {}


class Orders(BaseModel):
    """What a supervisor is to do; ``number`` names this answer."""

    model_config = ConfigDict(frozen=True)

    number: int
    start: Sequence[str]
    end: Sequence[tuple[str, str]]
    templates: Sequence[Mapping[str, Any]]
    is_leaving: bool


class PoolDesk(Protocol):
    """Gives work to supervisors."""

    async def work(self, identity: JobIdentity, said: Work) -> Orders:
        """Return what a supervisor is to do, once that is news or the time is over.

        Raises HpcAgentError when it cannot be said now.
        """


class PoolRoutes:
    """Lets the supervisors of an allocation ask for work of their own pool alone."""

    def __init__(self, gate: Gate, bodies: Bodies, desk: PoolDesk) -> None:
        self._gate = gate
        self._bodies = bodies
        self._desk = desk

    def routes(self) -> list[Route]:
        """Return the routes of the API."""
        return [Route(POOL_PATH, self.work, methods=["POST"])]

    async def work(self, request: Request) -> Response:
        """Wait for work."""
        identity = await self._gate.identify(request)
        if identity.kind != "pool":
            raise Refusal(403, "only the supervisors of a pool may ask for its work")
        said = await self._bodies.parsed(request, lambda body: asked(Work, body))
        try:
            orders = await self._desk.work(identity, said)
        except HpcAgentError as error:
            raise unavailable(str(error)) from error
        return JSONResponse(orders.model_dump())
