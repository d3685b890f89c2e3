"""Who asks, and whether it may: the rules of scope.py, and what only the agent knows."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from hpc_agent.errors import HpcAgentError
from hpc_agent.inbound.callers import vouch
from hpc_agent.inbound.log_key import LogKey
from hpc_agent.journal.about import note
from hpc_agent.relay import scope
from hpc_agent.relay.documents import Call
from hpc_agent.relay.identity import RESTART_HEADER, TOKEN_HEADER, JobDirectory, JobIdentity
from hpc_agent.relay.refusals import Refusal, unavailable
from hpc_agent.relay.requests import sanitized_state_key

REPORT_PATH = "/_hpc/report"
POOL_PATH = "/_hpc/pool/work"
_RESTART = re.compile(r"[0-9]{1,9}")
# Of a code server; each costs a look into the agent's database.
_MOST_RUNS = 1000

T = TypeVar("T")


class Gate:
    """Lets a job's request through, or raises the Refusal that it is answered with."""

    def __init__(self, directory: JobDirectory) -> None:
        self._directory = directory

    async def identify(self, request: Request) -> JobIdentity:
        """Return the job that a request's token belongs to."""
        token = request.headers.get(TOKEN_HEADER, "")
        identity = await _known(self._directory.identify(token))
        if identity is None:
            raise Refusal(401, "no job of this agent has this token")
        start = request.headers.get(RESTART_HEADER, "")
        if _RESTART.fullmatch(start) and int(start) < identity.restart_count:
            raise Refusal(401, "a later start of this job has taken its place")
        if identity.is_over and request.url.path != REPORT_PATH:
            raise Refusal(401, "this job has ended")
        if identity.kind == "pool" and request.url.path not in {REPORT_PATH, POOL_PATH}:
            raise Refusal(403, "the token of a pool's job is for the pool's work alone")
        vouch(request.scope)
        note(identity.log_fields)
        return identity

    async def allow_calls(
        self, identity: JobIdentity, wanted: Sequence[Call], variables: Mapping[str, Any]
    ) -> None:
        """Let the calls of a document through."""
        _refuse(scope.call_refusal(identity, wanted, variables))
        await self._allow_runs(identity, scope.writes_of(wanted, variables))
        for call in wanted:
            if call.root == "defsState":
                key = call.values(variables).get("key")
                await self.allow_state(identity, sanitized_state_key(str(key)))

    async def allow_events(self, identity: JobIdentity, runs: Sequence[Any]) -> None:
        """Let events of these runs through."""
        _refuse(scope.events_refusal(identity, runs))
        await self._allow_runs(identity, runs)

    async def allow_logs(self, identity: JobIdentity, key: LogKey) -> None:
        """Let a compute log through."""
        _refuse(scope.logs_refusal(identity, key.parts[0]))
        await self._allow_runs(identity, key.parts[:1])

    async def allow_state(self, identity: JobIdentity, key: str) -> None:
        """Let definitions' state through: the location that first asks for a key has it."""
        if identity.access.allows("write_any_definitions_state"):
            return
        owner = await _known(self._directory.state_owner(identity, key))
        if owner != identity.location:
            raise Refusal(
                403,
                f"the definitions' state {key!r} is that of location {owner!r}; an administrator "
                "can open it: access.allow: [write_any_definitions_state] in agent.yaml",
            )

    async def _allow_runs(self, identity: JobIdentity, runs: Sequence[Any]) -> None:
        """Refuse a code server the runs of another location; its own code may make runs itself."""
        if identity.kind == "run_worker" or identity.access.allows("write_other_runs"):
            return
        named = sorted(set(runs))
        if len(named) > _MOST_RUNS:
            raise Refusal(413, f"a request writes into at most {_MOST_RUNS} runs")
        for run in named:
            location = await _known(self._directory.location_of_run(run))
            if location not in {None, identity.location}:
                raise Refusal(
                    403, f"run {run} is of location {location!r}, not {identity.location!r}"
                )


async def _known(asking: Awaitable[T]) -> T:
    try:
        return await asking
    except HpcAgentError as error:
        raise unavailable(str(error)) from error


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise Refusal(403, reason)
