"""How many allocations a pool should have: pure decisions from what waits and what there is.

Only what could begin counts; an allocation that waits in Slurm's queue counts as room; nothing is
started for work that no allocation has the time for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_agent.config.pools import Pool
from hpc_agent.store.phases import Phase

# What waits is of many seconds: an allocation that is queued for longer is worth its place in it.
_WITHDRAW_AFTER_SECONDS = 30.0
# After a failed start, doubled with each further one.
_REST_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One allocation as it stands; times in seconds.

    ``left`` is what is left of its time limit. ``idle`` is how long nothing has lived in it, 0 when
    something does; ``queued`` how long it has waited for Slurm.
    """

    key: str
    phase: Phase
    slots: int
    busy: int
    left: float = math.inf
    idle: float = 0.0
    queued: float = 0.0
    is_leaving: bool = False

    @property
    def has_started(self) -> bool:
        """Whether it runs."""
        return self.phase is Phase.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All that decides on a pool; ``backlog`` is what waits and could begin in an allocation.

    ``too_late`` is how much of it could only begin in one that is not there yet: of none that there
    is, its time limit leaves the time.
    ``failed_starts`` counts the last allocations as far as none of them started, the last of which
    failed ``failed_ago`` seconds ago. An allocation is to have a successor when it has no more than
    ``handover_seconds`` left.
    """

    backlog: int
    allocations: Sequence[Allocation]
    too_late: int = 0
    slots_expected: int = 1
    failed_starts: int = 0
    last_failure: str = ""
    failed_ago: float = math.inf
    handover_seconds: float = 0.0
    stopped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done; ``words`` say why, one line each."""

    start: int = 0
    leave: Sequence[str] = ()
    withdraw: Sequence[str] = ()
    stop: str | None = None
    words: Sequence[str] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.start or self.leave or self.withdraw or self.stop)


def decide(pool: Pool, now: Standing) -> Decision:
    """Say what a pool needs."""
    if now.stopped is not None:
        return Decision(withdraw=[each.key for each in now.allocations if not each.has_started])
    if now.failed_starts >= pool.failed_starts:
        reason = f"{now.failed_starts} allocations in a row have failed: {now.last_failure}"
        return Decision(stop=reason, words=[f"stopped: {reason}"])
    leaving = _leaving(pool, now)
    staying = [
        each
        for each in now.allocations
        if not each.is_leaving and each.key not in {key for key, _ in leaving}
    ]
    lasting = [each for each in staying if each.left > now.handover_seconds]
    wanted, why = _wanted(pool, now, staying)
    withdraw = _withdrawn(pool, now, lasting, wanted)
    fresh = min(_for_what_is_too_late(now), pool.max - len(lasting))
    start = 0 if _is_to_rest(now) else max(0, wanted - len(lasting), fresh)
    # Each may have a successor beside it, and no more, however short its time limit is.
    start = max(0, min(start, 2 * pool.max - len(now.allocations)))
    words = [f"{key} takes nothing more: {reason}" for key, reason in leaving]
    words += [f"{key} is withdrawn from the queue: nothing waits for it" for key in withdraw]
    if start and start == fresh:
        why = f"{now.too_late} wait for which no allocation has the time any more"
    if start:
        words.append(f"{start} more: {why}")
    return Decision(start=start, leave=[key for key, _ in leaving], withdraw=withdraw, words=words)


def _is_to_rest(now: Standing) -> bool:
    """Whether the last failure is so fresh that another try would meet the same."""
    return bool(now.failed_starts) and now.failed_ago < _REST_SECONDS * 2 ** (now.failed_starts - 1)


def _room(now: Standing) -> int:
    """Return the slots that an allocation has, or is thought to get."""
    return max((each.slots for each in now.allocations), default=now.slots_expected)


def _for_what_is_too_late(now: Standing) -> int:
    """Return how many fresh allocations it takes: the free slots of those there are do not help."""
    return math.ceil(now.too_late / _room(now))


def _wanted(pool: Pool, now: Standing, staying: Sequence[Allocation]) -> tuple[int, str]:
    """Return how many allocations are to last, and why."""
    room = _room(now)
    busy = sum(each.busy for each in staying)
    needed = math.ceil((busy + now.backlog) / room)
    wanted = min(max(needed, pool.min), pool.max)
    ageing = [each for each in staying if each.left <= now.handover_seconds]
    if ageing and wanted:
        names = ", ".join(each.key for each in ageing)
        return wanted, f"the time limit of {names} is near"
    if needed > pool.min:
        return (
            wanted,
            f"{now.backlog} wait and {busy} run, with {room} slots in each (max {pool.max})",
        )
    return wanted, f"at least {pool.min}"


def _leaving(pool: Pool, now: Standing) -> list[tuple[str, str]]:
    """Return those that are to take nothing more, the one that is idle longest first."""
    running = [each for each in now.allocations if each.has_started and not each.is_leaving]
    spare = len(running) - pool.min
    idle = sorted(
        (each for each in running if not each.busy and each.idle >= pool.idle_seconds),
        key=lambda each: -each.idle,
    )
    # One whose successor runs has done its part.
    fresh = [each for each in running if each.left > now.handover_seconds]
    old = [each for each in running if each.left <= now.handover_seconds and fresh]
    found = [(each.key, "its time limit is near, and another one runs") for each in old]
    helps = now.backlog > now.too_late
    if now.too_late and not helps and len(fresh) >= pool.max:
        useless = [each for each in fresh if not each.busy]
        found += [(each.key, "it has not the time for what waits") for each in useless[:1]]
    gone = {key for key, _ in found}
    room = spare - len(found)
    for each in idle:
        if each.key not in gone and room > 0 and not helps:
            found.append((each.key, f"idle for {each.idle:.0f} s"))
            room -= 1
    return found


def _withdrawn(pool: Pool, now: Standing, lasting: Sequence[Allocation], wanted: int) -> list[str]:
    """Return those that wait in Slurm's queue for nothing, the youngest first."""
    queued = [each for each in lasting if not each.has_started]
    surplus = len(lasting) - max(wanted, pool.min)
    old_enough = [each for each in reversed(queued) if each.queued >= _WITHDRAW_AFTER_SECONDS]
    return [each.key for each in old_enough[: max(0, surplus)]] if not now.backlog else []
