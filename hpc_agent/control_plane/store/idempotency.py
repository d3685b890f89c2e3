"""Idempotency keys of writes: begun before, done after, so that a repeated write is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database, writing
from hpc_agent.control_plane.store.schema import idempotency_keys
from hpc_agent.errors import ControlPlaneRefusedError

_KEYS = idempotency_keys.c

KEPT_SECONDS = 3 * 24 * 3600
"""An agent may spool event writes for days while the control plane is away."""


class Seen(Enum):
    """What is known of a key."""

    NEW = auto()
    BEGUN = auto()
    """A write was begun and its end is unknown: the process died in between."""
    DONE = auto()


class IdempotencyKeys:
    """The keys of the last days."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def once(self, key: str) -> Iterator[Seen]:
        """Run a block that writes what has this key, unless ``Seen.DONE`` tells it not to.

        A client that timed out repeats its write while the first one may still be at work, here or
        in another gateway: the second waits for the first. An error leaves the key begun.
        """
        with self._database.hold(f"idempotency:{key}") as connection:
            with writing(connection):
                seen = _begin(connection, key)
            yield seen
            if seen is not Seen.DONE:
                with writing(connection):
                    _end(connection, key)

    def answer_once(self, key: str, act: Callable[[], str], *, undone: type[Exception]) -> str:
        """Act and return the answer; under a key that was answered before, return that answer.

        An error of the kind ``undone`` says that nothing was done: the next one may try again.
        Raises ControlPlaneRefusedError when an earlier attempt has ended no one knows how.
        """
        with self._database.hold(f"idempotency:{key}") as connection:
            with writing(connection):
                seen = _begin(connection, key)
                known = connection.scalar(
                    sa.select(_KEYS.answer).where(_KEYS.idempotency_key == key)
                )
            if seen is Seen.DONE:
                return str(known)
            if seen is Seen.BEGUN:
                raise ControlPlaneRefusedError(
                    "an earlier request with this Idempotency-Key was begun and its outcome is not "
                    "known: look whether it had its effect (for a launch, among the runs in the "
                    "UI), and ask again with another key if it had none"
                )
            try:
                answer = act()
            except undone:
                with writing(connection):
                    connection.execute(
                        sa.delete(idempotency_keys).where(_KEYS.idempotency_key == key)
                    )
                raise
            with writing(connection):
                _end(connection, key, answer)
            return answer

    def sweep(self) -> None:
        limit = time.time() - KEPT_SECONDS
        with self._database.write() as connection:
            connection.execute(sa.delete(idempotency_keys).where(_KEYS.created_at < limit))


def _begin(connection: sa.Connection, key: str) -> Seen:
    query = sa.select(_KEYS.done).where(_KEYS.idempotency_key == key)
    done = connection.scalar(query)
    if done is not None:
        return Seen.DONE if done else Seen.BEGUN
    connection.execute(
        sa.insert(idempotency_keys).values(idempotency_key=key, done=0, created_at=time.time())
    )
    return Seen.NEW


def _end(connection: sa.Connection, key: str, answer: str | None = None) -> None:
    connection.execute(
        sa.update(idempotency_keys)
        .where(_KEYS.idempotency_key == key)
        .values(done=1, answer=answer)
    )
