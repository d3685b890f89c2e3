"""Draining: what was taken is finished, and nothing new is."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from sqlite_utils import Database

from hpc_agent.store import inbox, meta, outbox, workers
from hpc_agent.store.workers import WorkerKind

_MOST_STREAMS = 1000


@dataclass(slots=True)
class Drain:
    """Whether the agent drains, since when (seconds since the epoch), and stops afterwards."""

    since: float | None = None
    stops: bool = False

    @property
    def is_on(self) -> bool:
        """Whether nothing new is taken."""
        return self.since is not None

    def recall(self, db: Database) -> Drain:
        """Take what was last written down, as the agent does when it is started again."""
        known = json.loads(meta.get(db, meta.DRAIN) or "{}")
        self.since, self.stops = known.get("since"), bool(known.get("stops"))
        return self

    def begin(self, db: Database, *, stops: bool) -> None:
        """Take nothing new from now on."""
        self.since, self.stops = self.since or time.time(), stops
        meta.put(db, meta.DRAIN, json.dumps(asdict(self)))

    def end(self, db: Database) -> None:
        """Take what comes again."""
        self.since, self.stops = None, False
        meta.put(db, meta.DRAIN, "{}")


def left_to_finish(db: Database) -> dict[str, int]:
    """Return what is still to be finished before all is done, by what it is."""
    left = {
        "runs": workers.count_open(db, WorkerKind.RUN_WORKER),
        "jobs of steps": workers.count_open(db, WorkerKind.STEP),
        "requests": len(inbox.to_serve(db)),
        "streams of messages": len(outbox.MESSAGES.heads(db, None, _MOST_STREAMS)),
    }
    return {name: count for name, count in left.items() if count}
