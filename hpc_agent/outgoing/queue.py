"""A queue of messages that go out, as the drain sees it: the agent's outbox, the relay's spool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Content_co = TypeVar("Content_co", covariant=True)

# What is set aside is kept for a person to look at, not for ever.
SET_ASIDE_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A message without its content.

    ``stream``: messages of one stream are sent one after the other. ``key``: its idempotency key;
    with the id it says which message is meant, since SQLite gives the id of a deleted row again.
    ``doubted``: for how many seconds the control plane has answered it with errors of its own.
    """

    id: int
    key: str
    stream: str
    size: int
    doubted: float = 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages wait, and how many are set aside."""

    waiting: int
    set_aside: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The same, with when the oldest message that waits came in (seconds since the epoch)."""

    waiting: int
    set_aside: int
    oldest_at: float | None


class OutgoingQueue(Protocol[Content_co]):
    """A durable queue. Every method raises StoreError, and then nothing has changed."""

    async def head(self, after: str | None, limit: int) -> Sequence[Waiting]:
        """Return the oldest message of each of the next streams, in the order of their names."""
        ...

    async def load(self, waiting: Waiting) -> Content_co | None:
        """Read a message, None when it is gone. Raises UnreadableMessageError."""
        ...

    async def sent(self, waiting: Waiting) -> Waiting | None:
        """Forget a message that the control plane has; return the next one of its stream."""
        ...

    async def set_aside(self, waiting: Waiting, reason: str) -> Waiting | None:
        """Keep a message out of the way, with the reason; return the next one of its stream."""
        ...

    async def doubt(self, waiting: Waiting, seconds: float, reason: str) -> None:
        """Note for how long the control plane has answered a message with errors of its own."""
        ...

    async def count(self) -> Counts:
        """Count the messages."""
        ...
