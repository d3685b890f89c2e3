"""How many jobs of steps a code location may have at once: what is beyond that waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlite_utils import Database

from hpc_agent.store.phases import LIVE, Phase
from hpc_agent.store.workers import Placement, WorkerKind

# Not by location: there it would find all steps of a month.
_OPEN = "INDEXED BY workers_open_kind"
# Those in an allocation of a pool have no job of their own, and the pool bounds them.
_STEPS = (
    f"kind = '{WorkerKind.STEP.value}' AND concluded_at IS NULL "
    f"AND placement != '{Placement.POOL.value}'"
)
_WAITS = f"{_STEPS} AND phase = '{Phase.INTENT.value}'"
_PHASES = ", ".join(f"'{phase.value}'" for phase in LIVE if phase is not Phase.INTENT)
_SUBMITTED = f"{_STEPS} AND phase IN ({_PHASES})"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBounds:
    """How many each location may have, in all deployments together; None for any number."""

    of_others: int | None = None
    of_location: Mapping[str, int] = field(default_factory=dict)

    def of(self, location: str | None) -> int | None:
        """Return how many a location may have."""
        return self.of_location.get(location or "", self.of_others)

    def held_back(self, db: Database, now: float) -> dict[str, int]:
        """Return the intents that are due and for which there is no room, each with its bound.

        The oldest of a location go first.
        """
        if self.of_others is None and not self.of_location:
            return {}
        held: dict[str, int] = {}
        for location in _waiting(db):
            bound = self.of(location)
            if bound is not None:
                room = max(bound - _submitted(db, location), 0)
                held |= dict.fromkeys(_beyond(db, location, room, now), bound)
        return held


def _waiting(db: Database) -> list[str | None]:
    """Return the locations of which steps are not submitted yet."""
    found = db.execute(f"SELECT DISTINCT location FROM workers {_OPEN} WHERE {_WAITS}")  # noqa: S608
    return [location for (location,) in found]


def _submitted(db: Database, location: str | None) -> int:
    found = db.execute(
        f"SELECT count(*) FROM workers {_OPEN} WHERE {_SUBMITTED} AND location IS ?",  # noqa: S608
        [location],
    )
    return int(found.fetchone()[0])


def _beyond(db: Database, location: str | None, room: int, now: float) -> list[str]:
    found = db.execute(
        f"SELECT key FROM workers {_OPEN} WHERE {_WAITS} AND location IS ? AND not_before <= ? "  # noqa: S608
        "ORDER BY created_at, rowid LIMIT -1 OFFSET ?",
        [location, now, room],
    )
    return [key for (key,) in found]
