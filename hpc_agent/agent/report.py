"""The report loop: sends what is in the outbox, in order where order matters."""

from __future__ import annotations

import json
from typing import Any

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import events
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.errors import UnreadableMessageError
from hpc_agent.outgoing.drain import Drain
from hpc_agent.outgoing.graphql_answer import Path
from hpc_agent.outgoing.verdict import Verdict, never, of_graphql, of_rest
from hpc_agent.store import outbox
from hpc_agent.store.outbox import Message, Outbox


class ReportLoop:
    """Empties the outbox: messages with one order key in turn, others side by side."""

    def __init__(self, context: Context) -> None:
        self._context = context
        settings = context.config.control_plane
        self._drain = Drain(
            "outbox",
            Outbox(context.store),
            self._send,
            news=context.bells.report.wait,
            patience_seconds=settings.set_aside_after_seconds,
            deadline_seconds=settings.timeout_seconds,
            on_set_aside=self._note_refusal,
        )

    async def step(self) -> float:
        """Send what may be sent now; return when to look again."""
        return await self._drain.until_idle()

    async def _send(self, message: Message) -> Verdict:
        return await deliver(self._context.api, message)

    def _note_refusal(self, reason: str) -> None:
        self._context.errors.add(self._context.wall(), reason)


async def deliver(api: AgentApi, message: Message) -> Verdict:
    """Send one message and return the verdict of the answer.

    Raises ControlPlaneUnavailableError when none came, and UnreadableMessageError.
    """
    content = _content(message)
    match message.kind:
        case outbox.EVENT:
            record = {"eventRecord": content}
            return await _mutate(api, message, events.STORE_EVENT, record, events.STORED_EVENT)
        case outbox.RUN_TAGS:
            try:
                tags = {"runId": content["run_id"], "jsonNewTags": json.dumps(content["tags"])}
            except (KeyError, TypeError) as error:
                raise UnreadableMessageError(f"these are no tags of a run: {error!r}") from error
            return await _mutate(api, message, events.ADD_RUN_TAGS, tags, events.ADDED_RUN_TAGS)
        case outbox.RESPONSE:
            answer = await api.send_compressed(
                "/upload_api_response",
                "api_response.tmp",
                message.payload,
                deployment=message.deployment,
            )
            return of_rest(answer)
        case kind:
            return never(f"a message of unknown kind {kind!r}: of a later version of the agent?")


async def _mutate(
    api: AgentApi, message: Message, document: str, variables: dict[str, Any], result: Path
) -> Verdict:
    answer = await api.send_graphql(
        document,
        variables,
        deployment=message.deployment,
        idempotency_key=message.idempotency_key,
    )
    return of_graphql(answer, [result])


def _content(message: Message) -> Any:
    try:
        return json.loads(message.payload)
    except (ValueError, RecursionError) as error:
        raise UnreadableMessageError(f"the message is not JSON: {error}") from error
