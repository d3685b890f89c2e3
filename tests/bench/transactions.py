"""What the transactions of the loops take after a long history, and while many workers wait.

There is no scheduler and no control plane: the store is asked what the loops ask it, as they do.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sqlite_utils import Database

from hpc_agent.agent.standings import Standings
from hpc_agent.agent.submit import take_alike
from hpc_agent.slurm.queue_position import Position
from hpc_agent.store import (
    code_servers,
    inbox,
    jobs,
    meta,
    node_faults,
    queue_positions,
    submissions,
    tracking,
    workers,
)
from hpc_agent.store.database import Store
from hpc_agent.store.news import Topic
from hpc_agent.store.outbox import Outbox
from hpc_agent.store.phases import FINAL, Phase
from hpc_agent.store.step_bounds import StepBounds
from hpc_agent.store.workers import Worker
from hpc_agent.workers import intents
from hpc_agent.workers.changes import Changes, Signature
from tests.bench.history import LIKENESS, with_intents, with_queued, write_history

Result = TypeVar("Result")
Work = Callable[["TimedStore"], Awaitable[object]]

LIMIT_MS = 20.0
_TIMES = 30
_SECONDS_EACH = 1.0
_ARRAY = 1000
_GIVEN_BACK = (
    "UPDATE workers SET phase = 'intent', array_key = NULL, array_index = NULL, current_job = NULL "
    "WHERE concluded_at IS NULL AND phase IN ('submitting', 'queued')"
)


class TimedStore(Store):
    """Notes how long each transaction takes, its commit included."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.times: list[float] = []
        self.is_watched = True

    async def aside(self, work: Callable[[Database], Result]) -> Result:
        """Do what is no part of the measurement."""
        self.is_watched = False
        try:
            return await self.run(work)
        finally:
            self.is_watched = True

    def _in_transaction(
        self, work: Callable[[Database], Result]
    ) -> tuple[Result, frozenset[Topic]]:
        started = time.perf_counter()
        try:
            return super()._in_transaction(work)
        finally:
            if self.is_watched:
                self.times.append((time.perf_counter() - started) * 1000)


def asked(ask: Callable[[Database], object]) -> Work:
    """Return the work of asking the store one question."""
    return lambda store: store.run(ask)


async def _read_for_watch(store: TimedStore) -> None:
    tracked = await store.aside(lambda db: tracking.tracked(db, None))
    rows = [row for some in tracked.rows.values() for row in some][:250]

    def read(db: Database) -> list[Worker]:
        return workers.with_keys(db, [job.worker_key for job in jobs.with_ids(db, rows)])

    await store.run(read)


async def _first_heartbeat(store: TimedStore) -> None:
    await Standings(store, lambda _: False, tell_lost_seconds=150.0).look(time.time())


async def _look_for_positions(store: TimedStore) -> None:
    rows = await store.run(lambda db: workers.rows_in_phase(db, Phase.QUEUED))
    await store.run(lambda db: queue_positions.waiting(db, rows[:200], since=time.time()))


async def _keep_positions(store: TimedStore) -> None:
    rows = await store.aside(lambda db: workers.rows_in_phase(db, Phase.QUEUED))
    waiting = await store.aside(
        lambda db: queue_positions.waiting(db, rows[:200], since=time.time())
    )
    among = time.monotonic_ns()
    moved = {each.key: Position(number, among, "p") for number, each in enumerate(waiting)}
    await store.run(lambda db: queue_positions.keep(db, moved))


async def _conclusions(store: TimedStore) -> None:
    rows = await store.run(lambda db: workers.rows_in_phase(db, *FINAL))
    await store.run(lambda db: workers.with_rows(db, rows[:200]))


async def _forget(store: TimedStore) -> None:
    long_hence = time.time() + 10 * 86400
    await store.run(lambda db: inbox.purge(db, long_hence))
    await store.run(lambda db: workers.purge(db, long_hence))


async def _take_array(store: TimedStore) -> list[Worker]:
    key = f"arr-{time.monotonic_ns()}"
    return await take_alike(store, StepBounds(), LIKENESS, key, size=_ARRAY, now=time.time())


async def _take(store: TimedStore) -> None:
    await _take_array(store)
    await store.aside(lambda db: db.execute(_GIVEN_BACK))


async def _search_array(store: TimedStore) -> None:
    key = str((await _take_array(store))[0].array_key)
    store.times.clear()
    await store.run(lambda db: submissions.submission(db, key))
    await store.aside(lambda db: db.execute(_GIVEN_BACK))


async def _accept(store: TimedStore) -> None:
    taken = await _take_array(store)
    store.times.clear()
    now = time.time()
    await _changes(store).apply_to_all(
        [each.key for each in taken],
        lambda worker, _: intents.observe_submission(worker, f"7_{worker.array_index}", now),
        source="sbatch",
    )
    await store.aside(lambda db: db.execute(_GIVEN_BACK))


async def _hold_back(store: TimedStore) -> None:
    words, now = f"limit {time.monotonic_ns()}", time.time()
    keys = await store.run(lambda db: submissions.to_be_told(db, LIKENESS, words, _ARRAY))
    await _changes(store).apply_to_all(
        keys,
        lambda worker, _: intents.hold_back(worker, words, now=now, not_before=now - 1),
        source="sbatch",
    )


async def _send(store: TimedStore) -> None:
    queue = Outbox(store)
    (first,) = await queue.head(None, 1)
    await queue.load(first)
    await queue.sent(first)


async def _set_aside(store: TimedStore) -> None:
    queue = Outbox(store)
    (first,) = await queue.head(None, 1)
    await queue.set_aside(first, "no")


def _changes(store: Store) -> Changes:
    signature = Signature(scheduler="slurm", agent_id="bench", agent_label=None)
    return Changes(store, signature, clock=time.time)


EVERYWHERE: Mapping[str, Work] = {
    "serve: requests": asked(inbox.to_serve),
    "submit: single": asked(lambda db: submissions.single(db, time.time())),
    "submit: due, launches": asked(
        lambda db: (submissions.due(db, time.time()), inbox.has_launches(db))
    ),
    "submit: next due": asked(lambda db: submissions.next_due(db, time.time())),
    "submit: nodes": asked(lambda db: node_faults.to_avoid(db, 0.0)),
    "search: unsure": asked(submissions.unsure),
    "watch: tracked": asked(lambda db: tracking.tracked(db, None)),
    "cancel: due": asked(lambda db: tracking.to_cancel(db, time.time())),
    "cancel: orders": asked(lambda db: tracking.orders_to_withdraw(db, time.time())),
    "cancel: next": asked(lambda db: tracking.next_deadline(db, time.time())),
    "conclude": _conclusions,
    "measure": asked(lambda db: workers.to_measure(db, since=time.time() - 3600)),
    "positions": _look_for_positions,
    "orphans": asked(lambda db: tracking.runs_to_ask_for(db, "id of run-5", 200)),
    "report: heads": lambda store: Outbox(store).head(None, 16),
    "report: count": lambda store: Outbox(store).count(),
    "heartbeat: the first": _first_heartbeat,
    "heartbeat: changes": asked(tracking.last_change),
    "heartbeat: lost": asked(lambda db: workers.lost_since(db, time.time() - 150)),
    "workspace: servers": asked(code_servers.not_retired),
    "workspace: packs": asked(workers.packs),
    "workspace: states": asked(
        lambda db: [workers.get(db, each.key) for each in code_servers.not_retired(db)]
    ),
    "lease": asked(lambda db: meta.take_lease(db, "bench", time.time())),
    "housekeeping: forget 100": _forget,
}
WITH_INTENTS: Mapping[str, Work] = {
    "submit: hold 1,000 back": _hold_back,
    "submit: take 1,000": _take,
    "submit: 1,000 accepted": _accept,
    "search: an array of 1,000": _search_array,
}
WITH_QUEUED: Mapping[str, Work] = {
    "watch: read": _read_for_watch,
    "positions: keep": _keep_positions,
    "report: send": _send,
    "report: set aside": _set_aside,
}


def transactions(
    directory: Path, *, concluded: int = 100_000, waiting: int = 10_000
) -> dict[str, dict[str, float]]:
    """Return median and maximum of each transaction, in milliseconds.

    All are measured twice: while workers are held back, and while their jobs are in the queue.
    """
    old = directory / "history"
    write_history(old, concluded)
    figures: dict[str, dict[str, float]] = {}
    for how, make, more in (
        ("held back", with_intents, WITH_INTENTS),
        ("queued", with_queued, WITH_QUEUED),
    ):
        home = make(old, directory / how.replace(" ", "-"), waiting)
        found = asyncio.run(_measure_all(home, {**EVERYWHERE, **more}))
        figures |= {f"{name} ({how})": times for name, times in found.items()}
    return figures


async def _measure_all(home: Path, parts: Mapping[str, Work]) -> dict[str, dict[str, float]]:
    store = TimedStore(home)
    await store.open()
    try:
        return {name: await _measure(store, work) for name, work in parts.items()}
    finally:
        await store.close()


async def _measure(store: TimedStore, work: Work) -> dict[str, float]:
    times: list[float] = []
    until = time.monotonic() + _SECONDS_EACH
    for number in itertools.count():
        if number >= _TIMES or (number >= 3 and time.monotonic() > until):
            break
        store.times.clear()
        await work(store)
        times += store.times
    return {
        "median": round(statistics.median(times), 2),
        "max": round(max(times), 2),
        "count": len(times),
    }


def too_slow(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the transactions that take too long at the median."""
    return [name for name, times in figures.items() if times["median"] > LIMIT_MS]


def table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return the figures for people."""
    slow = too_slow(figures)
    lines = [f"{'transaction, ms':44} {'median':>8} {'max':>8} {'count':>6}"]
    lines += [
        f"{name:44} {times['median']:8.2f} {times['max']:8.2f} {times['count']:6.0f}"
        f"{f'  above {LIMIT_MS:.0f} ms' if name in slow else ''}"
        for name, times in figures.items()
    ]
    return "\n".join(lines)
