"""The report loop: sends what is in the outbox, in order where order matters."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Sequence

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import events
from hpc_agent.errors import ControlPlaneError, ControlPlaneRefusedError
from hpc_agent.store import outbox
from hpc_agent.store.outbox import Message

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_BATCH = 200
_AT_ONCE = 8
# A refusal may come from a passing fault of the control plane: it is believed when repeated.
_REFUSALS_BELIEVED = 3


class ReportLoop:
    """Empties the outbox: messages with one order key in turn, others side by side."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._refusals: dict[int, int] = defaultdict(int)

    async def step(self) -> float:
        """Send one batch. Raises the first error that lets messages wait."""
        messages = await self._context.store.run(lambda db: outbox.waiting(db, _BATCH))
        queues: dict[str, list[Message]] = defaultdict(list)
        for message in messages:
            queues[message.order_key].append(message)
        slots = asyncio.Semaphore(_AT_ONCE)
        results = await asyncio.gather(
            *(self._send_in_order(queue, slots) for queue in queues.values()),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return 0.0 if len(messages) == _BATCH else _IDLE_SECONDS

    async def _send_in_order(self, queue: Sequence[Message], slots: asyncio.Semaphore) -> None:
        for message in queue:
            async with slots:
                await self._send(message)

    async def _send(self, message: Message) -> None:
        store = self._context.store
        try:
            await self._deliver(message)
        except ControlPlaneRefusedError as error:
            self._refusals[message.id] += 1
            if self._refusals[message.id] < _REFUSALS_BELIEVED:
                raise
            reason = str(error)
            log.warning("%s %s was refused and is set aside: %s", message.kind, message.id, reason)
            self._context.errors.add(self._context.clock(), reason)
            await store.run(lambda db: outbox.refused(db, message, reason))
        else:
            await store.run(lambda db: outbox.sent(db, message))

    async def _deliver(self, message: Message) -> None:
        api = self._context.api
        content = json.loads(message.payload)
        match message.kind:
            case outbox.EVENT:
                await api.graphql(
                    events.STORE_EVENT,
                    {"eventRecord": content},
                    deployment=message.deployment,
                    idempotency_key=message.idempotency_key,
                )
            case outbox.RUN_TAGS:
                await api.graphql(
                    events.ADD_RUN_TAGS,
                    {"runId": content["run_id"], "jsonNewTags": json.dumps(content["tags"])},
                    deployment=message.deployment,
                    idempotency_key=message.idempotency_key,
                )
            case outbox.RESPONSE:
                await api.put_compressed(
                    "/upload_api_response",
                    "api_response.tmp",
                    message.payload,
                    deployment=message.deployment,
                )
            case kind:
                raise ControlPlaneError(f"outbox: a message of unknown kind {kind!r}")
