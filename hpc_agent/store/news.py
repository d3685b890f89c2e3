"""What a transaction has changed, as the loops want to know it: no change forgets to wake one.

Triggers of the connection note a topic in a temporary table; the store hands on what is there when
the transaction has been committed.
"""

from __future__ import annotations

import enum

from sqlite_utils import Database

from hpc_agent.store.phases import FINAL, Phase
from hpc_agent.store.workers import Placement, WorkerKind


class Topic(enum.Enum):
    """A kind of change."""

    REQUEST = "a request has come in"
    MESSAGE = "there is something to tell"
    INTENT = "a worker is to be submitted"
    JOB = "a job of a worker has become known"
    ENDING = "a worker is to end"
    OVER = "a worker is over"
    CONCLUDED = "the last word on a worker is said"
    SERVER = "a code server or its worker has moved on"
    STEP = "the job of a step has moved on"
    POOL = "a pool, or what lives in one, has moved on"


_FINAL = ", ".join(f"'{phase.value}'" for phase in FINAL)
_TRIGGERS: tuple[tuple[Topic, str], ...] = (
    (Topic.REQUEST, "INSERT ON inbox"),
    (Topic.MESSAGE, "INSERT ON outbox"),
    (Topic.MESSAGE, "UPDATE OF refused ON outbox WHEN NEW.refused IS NULL"),
    (Topic.INTENT, f"INSERT ON workers WHEN NEW.phase = '{Phase.INTENT.value}'"),
    (
        Topic.INTENT,
        f"UPDATE OF phase, not_before ON workers WHEN NEW.phase = '{Phase.INTENT.value}'",
    ),
    (Topic.JOB, "INSERT ON jobs"),
    (Topic.ENDING, "UPDATE OF terminate_at ON workers WHEN NEW.terminate_at IS NOT NULL"),
    (Topic.ENDING, "UPDATE OF is_claimed ON workers WHEN NEW.is_claimed AND NOT OLD.is_claimed"),
    (
        Topic.OVER,
        f"UPDATE OF phase ON workers WHEN NEW.phase IN ({_FINAL}) AND OLD.phase != NEW.phase",
    ),
    (Topic.CONCLUDED, "UPDATE OF concluded_at ON workers WHEN NEW.concluded_at IS NOT NULL"),
    (
        Topic.SERVER,
        f"UPDATE OF phase ON workers WHEN NEW.kind IN ('{WorkerKind.CODE_SERVER.value}', "
        f"'{WorkerKind.PACK.value}') AND OLD.phase != NEW.phase",
    ),
    # Its job's end is known before it is given up: only then is there something to start.
    (Topic.SERVER, "UPDATE OF status ON code_servers WHEN OLD.status != NEW.status"),
    (
        Topic.STEP,
        "INSERT ON worker_history WHEN (SELECT kind FROM workers WHERE key = NEW.key) = "  # noqa: S608
        f"'{WorkerKind.STEP.value}'",
    ),
    (Topic.POOL, f"INSERT ON workers WHEN NEW.placement = '{Placement.POOL.value}'"),
    (
        Topic.POOL,
        "UPDATE OF phase, terminate_at, pack_key, is_leaving ON workers WHEN "
        f"NEW.placement = '{Placement.POOL.value}' OR NEW.kind = '{WorkerKind.POOL.value}'",
    ),
)


def watch(db: Database) -> None:
    """Let this connection note what its transactions change."""
    db.execute("CREATE TEMP TABLE news (topic TEXT PRIMARY KEY) WITHOUT ROWID")
    for number, (topic, event) in enumerate(_TRIGGERS):
        db.execute(
            f"CREATE TEMP TRIGGER news_{number} AFTER {event} "  # noqa: S608 - our own words
            f"BEGIN INSERT OR IGNORE INTO news VALUES ('{topic.name}'); END"
        )


def take(db: Database) -> frozenset[Topic]:
    """Return what this transaction has changed so far."""
    found = db.execute("SELECT topic FROM temp.news").fetchall()
    if found:
        db.execute("DELETE FROM temp.news")
    return frozenset(Topic[name] for (name,) in found)
