"""Gives the work of pools to the supervisors of their allocations."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.pools.fit import Fit
from hpc_agent.relay.broadcast import Broadcast
from hpc_agent.relay.identity import JobIdentity
from hpc_agent.relay.pools import Orders, Work
from hpc_agent.store import pools, workers
from hpc_agent.store.database import Store
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.pools import Supervisor
from hpc_agent.store.workers import Worker
from hpc_agent.workers import evidence, node_evidence
from hpc_agent.workers.change import NOTHING, Change
from hpc_agent.workers.changes import Changes

_TEMPLATES_AT_MOST = 20
# So many of the oldest may be too long for what is left of an allocation, and hold up no other.
_LOOKED_BEHIND = 50
# From a member's end until its supervisor says so, and some more.
_GONE_AFTER_SECONDS = 20.0
# From the end of the last member's grace until Slurm has said how the allocation ended.
_LEFT_AFTER_SECONDS = 60.0


@dataclass(slots=True)
class Heard:
    """What is only known while the supervisor of a node is heard; times by the clock.

    ``said`` is the latest: while one call waits, another may tell of what has changed since.
    ``missing`` are the members that it has no process of, and since when.
    """

    said: Work
    said_at: float
    idle_since: float | None = None
    is_leaving: bool = False
    missing: dict[str, float] = field(default_factory=dict)


class Desk:
    """The agent's side of the work call; an assignment is durable before it is handed out."""

    def __init__(
        self,
        *,
        config: AgentConfig,
        store: Store,
        changes: Changes,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._store = store
        self._changes = changes
        self._clock = clock
        self._bell = Broadcast()
        self._heard: dict[str, dict[int, Heard]] = {}

    def ring(self) -> None:
        """Let the parked supervisors look again."""
        self._bell.ring()

    def heard(self, key: str) -> Sequence[Heard]:
        """Return what the supervisors of an allocation have said."""
        return list(self._heard.get(key, {}).values())

    def forget_others(self, keys: Sequence[str]) -> None:
        """Forget the supervisors of all allocations but these."""
        self._heard = {key: some for key, some in self._heard.items() if key in set(keys)}

    def gone(self) -> list[str]:
        """Return the members of which their supervisors have had no process for a while.

        Where all end since their allocation does, its end says why: that is waited for.
        """
        now = self._clock()
        left_after = 2 * self._config.runs.grace_seconds + _LEFT_AFTER_SECONDS
        return [
            key
            for nodes in self._heard.values()
            for each in nodes.values()
            for key, since in each.missing.items()
            if now - since >= (left_after if each.is_leaving else _GONE_AFTER_SECONDS)
            and not any(key in other.said.held for other in nodes.values())
        ]

    async def work(self, identity: JobIdentity, said: Work) -> Orders:
        """See PoolDesk.work."""
        now = self._clock()
        deadline = now + said.wait
        nodes = self._heard.setdefault(identity.key, {})
        heard = nodes.setdefault(said.node, Heard(said=said, said_at=now))
        heard.said, heard.said_at = said, now
        while True:
            rung = self._bell.count
            latest, asked_at = heard.said, heard.said_at
            orders, living = await self._store.run(partial(self._orders, identity.key, latest))
            self._note(heard, latest, living, asked_at)
            left = deadline - self._clock()
            if orders.number != said.seen or left <= 0:
                return orders
            await self._bell.wait(rung, left)

    def _note(self, heard: Heard, said: Work, living: Sequence[Worker], asked_at: float) -> None:
        now = self._clock()
        heard.is_leaving = said.is_leaving
        heard.idle_since = None if living else heard.idle_since or now
        missing = {
            each.key
            for each in living
            if each.is_claimed
            and each.pool_node is not None
            and (each.started_at or each.submitting_since or now) < asked_at
            and each.key not in said.held
        }
        heard.missing = {key: heard.missing.get(key, now) for key in missing}

    def _orders(self, key: str, said: Work, db: Database) -> tuple[Orders, Sequence[Worker]]:
        allocation = workers.find(db, key)
        if allocation is None or allocation.phase.is_final:
            return _answer(is_leaving=True), []
        if allocation.job is None:
            return _answer(), []  # sbatch has not answered yet
        if not allocation.is_claimed:
            allocation = self._started(db, allocation, said)
        pools.keep_supervisor(db, key, _supervisor(said))
        is_leaving = (
            allocation.is_leaving
            or allocation.terminate_at is not None
            or allocation.pool not in self._config.pools
        )
        takes_more = not (is_leaving or said.is_leaving)
        members = self._members(db, allocation, said, takes_more=takes_more)
        if takes_more:
            members += self._assigned(db, allocation, said, room=said.slots - len(members))
        held = set(said.held)
        return (
            _answer(
                start=[
                    each.key for each in members if not each.is_claimed and each.key not in held
                ],
                end=[(each.key, sent) for each in members if (sent := self._signal(each))],
                templates=self._templates(db, str(allocation.pool)),
                is_leaving=is_leaving,
            ),
            members,
        )

    def _templates(self, db: Database, pool: str) -> list[dict[str, Any]]:
        """Return what is to be warm: of none that has left the pool, or is to start cold."""
        locations = [
            name
            for name, location in self._config.locations.items()
            if location.pool == pool and location.warm != "off"
        ]
        return pools.templates(db, pool, locations, now=self._clock(), limit=_TEMPLATES_AT_MOST)

    def _started(self, db: Database, allocation: Worker, said: Work) -> Worker:
        job_id, now = str(allocation.job_id), self._clock()
        return self._changes.within(
            db,
            allocation.key,
            lambda worker, _: node_evidence.observe_start(worker, said.hostname, job_id, now),
            source="node",
        )

    def _members(
        self, db: Database, allocation: Worker, said: Work, *, takes_more: bool
    ) -> list[Worker]:
        """Return who lives on this node; what is not to begin here any more never will."""
        living = []
        for each in workers.in_pack(db, allocation.key):
            member = self._placed(db, each, said)
            # One that has begun by an old assignment: nobody knows on which node.
            if (member.pool_node or 0) != said.node:
                continue
            if not member.is_claimed and member.key not in said.held:
                if member.terminate_at is not None:
                    self._give_back(db, member.key, "asked to end before it began")
                    continue
                if not takes_more:
                    self._give_back(db, member.key, f"{allocation.key} takes nothing more")
                    continue
            living.append(member)
        return living

    def _placed(self, db: Database, member: Worker, said: Work) -> Worker:
        """Note the node that a member lives on: an assignment to another one may be older."""
        if member.pool_node == said.node or not member.is_claimed or member.key not in said.held:
            return member
        now = self._clock()
        return workers.change(db, member.key, now=now, source="supervisor", pool_node=said.node)

    def _give_back(self, db: Database, key: str, words: str) -> None:
        now = self._clock()
        self._changes.within(
            db,
            key,
            lambda worker, _: evidence.assigned_to_none(worker, now, words),
            source="agent",
        )

    def _assigned(self, db: Database, allocation: Worker, said: Work, *, room: int) -> list[Worker]:
        """Give what waits to free slots, the oldest first."""
        if room <= 0:
            return []
        name = str(allocation.pool)
        fit = Fit(self._config.pools[name], allocation, now=self._clock())
        oldest = pools.waiting(db, name, room + _LOOKED_BEHIND)
        chosen = (each for each in oldest if fit.has_time_for(db, each))
        return [
            self._assign(db, each, allocation, said.node) for each in itertools.islice(chosen, room)
        ]

    def _assign(self, db: Database, worker: Worker, allocation: Worker, node: int) -> Worker:
        now = self._clock()
        job = allocation.job

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            if worker.phase is not Phase.INTENT or job is None:
                return NOTHING
            changes = {
                "pack_key": allocation.key,
                "pool_node": node,
                "current_job": job.id,
                "submitting_since": now,
                "waits_for": "",
            }
            return Change(phase=Phase.QUEUED, worker=changes)

        return self._changes.within(db, worker.key, observe, source="agent")

    def _signal(self, member: Worker) -> str:
        """Return the signal that a member is to get, "" when none."""
        if not member.is_claimed:
            return ""
        now = self._clock()
        if member.terminate_at is not None:
            return "INT" if now < member.terminate_at else "TERM"
        pool = self._config.pools.get(str(member.pool))
        longest = pool.slot.seconds if pool is not None else None
        if longest is not None and now - (member.started_at or now) > longest:
            return "USR1"
        return ""


def _supervisor(said: Work) -> Supervisor:
    return Supervisor(
        node=said.node,
        hostname=said.hostname,
        slots=said.slots,
        templates={name: state.model_dump() for name, state in said.templates.items()},
    )


def _answer(
    *,
    start: Sequence[str] = (),
    end: Sequence[tuple[str, str]] = (),
    templates: Sequence[Mapping[str, object]] = (),
    is_leaving: bool = False,
) -> Orders:
    content = [list(start), list(end), list(templates), is_leaving]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Orders(
        number=int(digest[:15], 16) | 1,
        start=start,
        end=end,
        templates=templates,
        is_leaving=is_leaving,
    )
