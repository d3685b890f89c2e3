"""The phases of a worker and the one function that writes them."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from sqlite_utils import Database

from hpc_agent.errors import StoreError


class Phase(enum.Enum):
    """Where a worker is in its life, from the agent's point of view.

    INTENT → SUBMITTING → QUEUED → RUNNING → ENDED. SUBMITTING means that sbatch may have been
    called: whoever finds a worker so after a restart searches for its job before submitting again.
    """

    INTENT = "intent"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        """Whether the worker is over."""
        return self in FINAL

    @property
    def is_submitted(self) -> bool:
        """Whether the scheduler has a job of it."""
        return self in {Phase.QUEUED, Phase.RUNNING}


FINAL = frozenset({Phase.ENDED, Phase.REFUSED, Phase.WITHDRAWN, Phase.LOST})
LIVE = tuple(phase for phase in Phase if phase not in FINAL)

# QUEUED → INTENT: the scheduler has lost a job that had not started. RUNNING → QUEUED: Slurm has
# requeued it. A server in a pack follows the pack from INTENT on, and has no SUBMITTING of its own.
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.INTENT: frozenset(
        {
            Phase.SUBMITTING,
            Phase.QUEUED,
            Phase.RUNNING,
            Phase.ENDED,
            Phase.REFUSED,
            Phase.WITHDRAWN,
            Phase.LOST,
        }
    ),
    Phase.SUBMITTING: frozenset(
        {
            Phase.INTENT,
            Phase.QUEUED,
            Phase.RUNNING,
            Phase.ENDED,
            Phase.REFUSED,
            Phase.WITHDRAWN,
        }
    ),
    Phase.QUEUED: frozenset(
        {Phase.INTENT, Phase.RUNNING, Phase.ENDED, Phase.WITHDRAWN, Phase.LOST}
    ),
    Phase.RUNNING: frozenset({Phase.QUEUED, Phase.ENDED, Phase.LOST}),
    **{phase: frozenset() for phase in FINAL},
}


class TransitionError(StoreError):
    """A phase cannot follow another: a fault of the agent's own logic."""


def move(db: Database, key: str, to: Phase) -> Phase:
    """Let a worker enter a phase and return the one before.

    Raises TransitionError when the table has no such transition, KeyError without such a worker.
    """
    row = db.execute("SELECT phase FROM workers WHERE key = ?", [key]).fetchone()
    if row is None:
        raise KeyError(key)
    before = Phase(row[0])
    if to is before:
        return before
    if to not in TRANSITIONS[before]:
        raise TransitionError(f"worker {key}: {to.value} cannot follow {before.value}")
    db.execute("UPDATE workers SET phase = ? WHERE key = ?", [to.value, key])
    return before
