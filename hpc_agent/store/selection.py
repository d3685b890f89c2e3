"""Which workers a person wants to see, and in which order: what becomes one SELECT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind, select

# What rows may be ordered by, each as SQL over w(orkers) and j(obs); ages and lengths in seconds.
_QUEUED_SECONDS = "coalesce(w.started_at, w.ended_at, 1e12) - w.created_at"
_RUN_SECONDS = "coalesce(w.ended_at, 1e12) - w.started_at"
ORDERS: Mapping[str, Sequence[str]] = {
    "created": ["w.created_at"],
    "started": ["w.started_at"],
    "ended": ["w.ended_at"],
    "wait": [_QUEUED_SECONDS],
    "elapsed": [_RUN_SECONDS],
    "location": ["w.location"],
    "state": ["w.phase", "coalesce(w.outcome, j.state)"],
    "partition": ["j.partition"],
}
_NEWEST_ATTEMPT = (
    "w.attempt = (SELECT max(other.attempt) FROM workers AS other "
    "WHERE other.run_id = w.run_id AND other.kind = w.kind)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is asked for: each field left empty asks for nothing; ``since`` in epoch seconds.

    ``states`` are phases, or states of the scheduler's (``PENDING``). ``run_id`` may be the
    beginning of one. ``order`` is one of ``ORDERS``, with the largest first unless ``ascending``.
    """

    kinds: Sequence[WorkerKind] = ()
    deployment: str | None = None
    location: str | None = None
    states: Sequence[str] = ()
    run_id: str | None = None
    partition: str | None = None
    since: float | None = None
    ended_since: float | None = None
    with_concluded: bool = False
    newest_attempts: bool = False
    order: str = "created"
    ascending: bool = False
    limit: int = 50


EVERYTHING = Selection(with_concluded=True, limit=100_000)


def find(db: Database, selection: Selection) -> list[Worker]:
    """Return the workers that are asked for."""
    conditions, values = _conditions(selection)
    direction = "ASC" if selection.ascending else "DESC"
    order = ", ".join(f"{each} {direction}" for each in ORDERS[selection.order])
    where = f"{' AND '.join(conditions) or '1'} ORDER BY {order}, w.created_at DESC LIMIT ?"
    return list(select(db, where, [*values, selection.limit]))


def runs_that_begin_with(db: Database, prefix: str, *, limit: int) -> list[str]:
    """Return the ids of runs that begin so; all of them that fit into ``limit``."""
    found = db.execute(
        "SELECT DISTINCT run_id FROM workers WHERE run_id >= ? AND run_id < ? LIMIT ?",
        [prefix, prefix + "\U0010ffff", limit],
    )
    return [run_id for (run_id,) in found]


def _conditions(selection: Selection) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def also(condition: str, *given: Any) -> None:
        conditions.append(condition)
        values.extend(given)

    if not selection.with_concluded:
        also("w.concluded_at IS NULL")
    if selection.kinds:
        also(f"w.kind IN ({_marks(selection.kinds)})", *selection.kinds)
    if selection.deployment is not None:
        also("w.deployment = ?", selection.deployment)
    if selection.location is not None:
        also("w.location = ?", selection.location)
    if selection.partition is not None:
        also("j.partition = ?", selection.partition)
    if selection.since is not None:
        also("w.created_at >= ?", selection.since)
    if selection.ended_since is not None:
        also("w.ended_at >= ?", selection.ended_since)
    if selection.run_id is not None:
        also("w.run_id >= ? AND w.run_id < ?", selection.run_id, selection.run_id + "\U0010ffff")
    if selection.newest_attempts:
        also(_NEWEST_ATTEMPT)
    if selection.states:
        phases = [state.lower() for state in selection.states if is_phase(state)]
        others = [state.upper() for state in selection.states if not is_phase(state)]
        also(
            f"(w.phase IN ({_marks(phases)}) "
            f"OR coalesce(w.outcome, j.state, 'UNKNOWN') IN ({_marks(others)}))",
            *phases,
            *others,
        )
    return conditions, values


def is_phase(word: str) -> bool:
    """Whether a word is the agent's own name of a state, and not the scheduler's."""
    return word.lower() in {phase.value for phase in Phase}


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
