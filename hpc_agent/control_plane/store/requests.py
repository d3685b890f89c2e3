"""Requests to agents, as rows: enqueued, leased when popped, answered once.

    QUEUED ──pop──► LEASED ──answer──► ANSWERED
      │  ▲            │
      │  └──lease lost┘
      ├──► WITHDRAWN   a run canceled before any agent took it
      └──► EXPIRED     nobody waits for the answer any more

Popping is at-least-once: what an agent took and did not answer is handed out again. An agent that
names itself (``X-Hpc-Agent-Id``) treats a request id it has seen before as already taken.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.locations import read_version
from hpc_agent.control_plane.store.postgresql import notify
from hpc_agent.control_plane.store.schema import bump, keep_others_out, requests

ANSWERED_KEPT_SECONDS = 24 * 3600
LAUNCHES_KEPT_SECONDS = 7 * 24 * 3600
"""Without what was asked and answered: whose they were alone."""

_LAUNCH = "LAUNCH_RUN"  # DagsterCloudApi

ENQUEUED = "requests"
"""The topic of the notice that a request waits for an agent."""

ANSWERED = "answered:"
"""With a request's id behind it, the topic of the notice that it is settled."""


class RequestState(StrEnum):
    """Where a request is in its life."""

    QUEUED = "queued"
    LEASED = "leased"
    ANSWERED = "answered"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"

    @property
    def is_open(self) -> bool:
        return self in (RequestState.QUEUED, RequestState.LEASED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; ``expires_at`` None means that it must not be dropped.

    ``body`` is a serialized DagsterCloudApiRequest, ``response`` a serialized answer. Until
    ``awaited_until`` a task of some gateway waits for the answer and acts on it. ``wait_told_at``
    is when its run was told that it waits for an agent.
    """

    request_id: str
    deployment: str
    is_branch: bool = False
    api: str
    body: str
    agent_queue: str | None
    run_id: str | None = None
    state: RequestState = RequestState.QUEUED
    created_at: float
    expires_at: float | None
    lease_owner: str | None = None
    leased_at: float | None = None
    hand_outs: int = 0
    answered_at: float | None = None
    response: str | None = None
    awaited_until: float | None = None
    wait_told_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Serves:
    """Which requests an agent takes; None among the queues is the default queue."""

    deployments: Sequence[str]
    branches: bool = False
    queues: Sequence[str | None] = (None,)


class Requests:
    """The queue of requests, as a table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, request: Request) -> None:
        with self._database.write() as connection:
            _insert(connection, request)

    def add_unless_waiting(self, request: Request) -> None:
        """Store a request unless one of the same kind waits for the same agents."""
        same = sa.and_(
            requests.c.api == request.api,
            requests.c.deployment == request.deployment,
            requests.c.state == RequestState.QUEUED,
            requests.c.agent_queue.is_(request.agent_queue)
            if request.agent_queue is None
            else requests.c.agent_queue == request.agent_queue,
        )
        with self._database.write() as connection:
            keep_others_out(connection, ENQUEUED)  # all gateways notice a deploy at the same time
            if connection.execute(sa.select(requests.c.request_id).where(same)).first() is None:
                _insert(connection, request)

    def get(self, request_id: str) -> Request | None:
        with self._database.read() as connection:
            return _found(connection, request_id)

    def open_requests(self, api: str, *, run_id: str | None, deployment: str) -> list[Request]:
        """Return the unanswered requests of this kind for this run (None: for no run)."""
        query = sa.select(requests).where(
            requests.c.api == api,
            requests.c.deployment == deployment,
            requests.c.run_id == run_id if run_id is not None else requests.c.run_id.is_(None),
            requests.c.state.in_([RequestState.QUEUED, RequestState.LEASED]),
        )
        with self._database.read() as connection:
            return [_request(row) for row in connection.execute(query).mappings()]

    def last_launch(self, run_id: str, *, deployment: str) -> Request | None:
        """Return the last launch of a run, as long as it is kept."""
        query = (
            sa.select(requests)
            .where(
                requests.c.api == _LAUNCH,
                requests.c.deployment == deployment,
                requests.c.run_id == run_id,
            )
            .order_by(requests.c.created_at.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _request(row)

    def pop(self, *, owner: str, serves: Serves, limit: int) -> list[Request]:
        """Lease the oldest waiting requests to an agent."""
        now = time.time()
        query = _waiting(serves, now).order_by("created_at").limit(limit)
        with self._database.read() as connection:  # most polls find nothing: take no lock for that
            if connection.execute(query.limit(1)).first() is None:
                return []
        # Other gateways hand out at the same time: none waits for rows that another has in hand.
        query = query.with_for_update(skip_locked=True)
        with self._database.write() as connection:
            taken = [_request(row) for row in connection.execute(query).mappings()]
            connection.execute(
                sa.update(requests)
                .where(requests.c.request_id.in_([request.request_id for request in taken]))
                .values(
                    state=RequestState.LEASED, lease_owner=owner, leased_at=now,
                    hand_outs=requests.c.hand_outs + 1,
                )
            )  # fmt: skip
        return taken

    def answer(self, request_id: str, response: str) -> Request | None:
        """Store the first answer to a request; None when it is unknown or answered already."""
        with self._database.write() as connection:
            changed = connection.execute(
                sa.update(requests)
                .where(
                    requests.c.request_id == request_id,
                    requests.c.state.in_(
                        [RequestState.QUEUED, RequestState.LEASED, RequestState.EXPIRED]
                    ),
                )
                .values(state=RequestState.ANSWERED, answered_at=time.time(), response=response)
            )
            notify(connection, ANSWERED + request_id)
            # As it is now: who waits may take the answer as soon as it is there.
            return _found(connection, request_id) if changed.rowcount else None

    def withdraw(self, request_id: str) -> bool:
        """Take a request back, and tell whether no agent had taken it."""
        with self._database.write() as connection:
            changed = connection.execute(
                sa.update(requests)
                .where(requests.c.request_id == request_id, requests.c.state == RequestState.QUEUED)
                .values(state=RequestState.WITHDRAWN, answered_at=time.time())
            )
            notify(connection, ANSWERED + request_id)
        return changed.rowcount > 0

    def await_answer(self, request_id: str, until: float | None) -> None:
        """Note until when a task waits for the answer; None when it has taken it."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(requests)
                .where(requests.c.request_id == request_id)
                .values(awaited_until=until)
            )

    def take_abandoned(self, before: float, until: float) -> list[Request]:
        """Return the answered requests whose waiter should have acted by then and has not.

        Its gateway was killed, or the caller went away just before the answer came. Whoever takes
        them has until then to act, and says so by ``await_answer``; no other gets them meanwhile.
        """
        query = sa.select(requests).where(
            requests.c.state == RequestState.ANSWERED, requests.c.awaited_until < before
        )
        with self._database.read() as connection:
            if connection.execute(query.limit(1)).first() is None:
                return []
        with self._database.write() as connection:
            rows = connection.execute(query.with_for_update(skip_locked=True)).mappings()
            found = [_request(row) for row in rows]
            connection.execute(
                sa.update(requests)
                .where(requests.c.request_id.in_([request.request_id for request in found]))
                .values(awaited_until=until)
            )
        return found

    def take_in_wait(self, api: str, since: float) -> list[Request]:
        """Return what no agent has taken since then, each request once for all gateways."""
        waits = sa.and_(
            requests.c.api == api, requests.c.state == RequestState.QUEUED,
            requests.c.created_at < since, requests.c.wait_told_at.is_(None),
        )  # fmt: skip
        query = sa.select(requests).where(waits).order_by("created_at")
        with self._database.read() as connection:  # most looks find nothing: take no lock for that
            if connection.execute(query.limit(1)).first() is None:
                return []
        with self._database.write() as connection:
            locked = query.with_for_update(skip_locked=True)
            found = [_request(row) for row in connection.execute(locked).mappings()]
            connection.execute(
                sa.update(requests)
                .where(requests.c.request_id.in_([request.request_id for request in found]))
                .values(wait_told_at=time.time())
            )
        return found

    def leased(self) -> list[Request]:
        query = sa.select(requests).where(requests.c.state == RequestState.LEASED)
        with self._database.read() as connection:
            return [_request(row) for row in connection.execute(query).mappings()]

    def hand_back_of(self, owner: str) -> None:
        """Put back what this agent has been handed and has not answered: it may not have it."""
        held = [request for request in self.leased() if request.lease_owner == owner]
        if held:
            self.hand_back(held)

    def hand_back(self, leases: Sequence[Request]) -> None:
        """Put leased requests back at their old place in the queue.

        One that has been leased anew since it was read keeps its new lease: another gateway may
        have handed it back first.
        """
        with self._database.write() as connection:
            for lease in sorted(leases, key=lambda each: each.request_id):
                connection.execute(
                    sa.update(requests)
                    .where(
                        requests.c.request_id == lease.request_id,
                        requests.c.state == RequestState.LEASED,
                        requests.c.hand_outs == lease.hand_outs,
                    )
                    .values(state=RequestState.QUEUED, lease_owner=None, leased_at=None)
                )
            bump(connection, ENQUEUED)

    def sweep(self) -> None:
        """Expire what nobody waits for and forget what was settled a day ago.

        Of launches it is known for longer which agents had them.
        """
        now = time.time()
        settled = now - ANSWERED_KEPT_SECONDS
        old_launch = sa.and_(requests.c.api == _LAUNCH, requests.c.answered_at < settled)
        with self._database.write() as connection:
            connection.execute(
                sa.update(requests)
                .where(requests.c.state == RequestState.QUEUED, requests.c.expires_at < now)
                .values(state=RequestState.EXPIRED, answered_at=now)
            )
            connection.execute(
                sa.delete(requests).where(
                    requests.c.answered_at < settled,
                    sa.or_(
                        requests.c.api != _LAUNCH,
                        requests.c.answered_at < now - LAUNCHES_KEPT_SECONDS,
                    ),
                )
            )
            connection.execute(
                sa.update(requests)
                .where(old_launch, requests.c.body != "")
                .values(body="", response=None)
            )
            connection.execute(
                sa.delete(requests).where(
                    requests.c.state == RequestState.LEASED, requests.c.expires_at < settled
                )
            )

    def version(self) -> int:
        """Return a counter that grows when a request is enqueued, by this process or another."""
        return read_version(self._database, ENQUEUED)


def _insert(connection: sa.Connection, request: Request) -> None:
    values = {**asdict(request), "is_branch": int(request.is_branch)}
    connection.execute(sa.insert(requests).values(values))
    bump(connection, ENQUEUED)


def _waiting(serves: Serves, now: float) -> sa.Select[Any]:
    full = sa.and_(requests.c.is_branch == 0, requests.c.deployment.in_(serves.deployments))
    return sa.select(requests).where(
        requests.c.state == RequestState.QUEUED,
        sa.or_(full, requests.c.is_branch == 1) if serves.branches else full,
        sa.or_(requests.c.expires_at.is_(None), requests.c.expires_at > now),
        _in_queues(serves.queues),
    )


def _in_queues(queues: Sequence[str | None]) -> sa.ColumnElement[bool]:
    named = requests.c.agent_queue.in_([queue for queue in queues if queue])
    if all(queues):
        return named
    return sa.or_(named, requests.c.agent_queue.is_(None))


def _found(connection: sa.Connection, request_id: str) -> Request | None:
    query = sa.select(requests).where(requests.c.request_id == request_id)
    row = connection.execute(query).mappings().one_or_none()
    return _request(row) if row else None


def _request(row: Mapping[Any, Any]) -> Request:
    state, is_branch = RequestState(row["state"]), bool(row["is_branch"])
    return Request(**{**row, "state": state, "is_branch": is_branch})
