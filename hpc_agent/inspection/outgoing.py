"""What waits to be told to the control plane and what it did not want, beside an agent or without.

Whatever is changed here, the agent is rung for: it looks into both databases then.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_agent.doorbell import ring
from hpc_agent.errors import HpcAgentError, StoreError
from hpc_agent.outgoing.queue import Counts
from hpc_agent.outgoing.table import Entry, MessageTable
from hpc_agent.relay import spool
from hpc_agent.store import database, outbox

_BUSY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Queue:
    name: str
    file: str
    table: MessageTable
    stream_prefix: str


OUTBOX = _Queue("outbox", database.FILE_NAME, outbox.MESSAGES, "run:")
SPOOL = _Queue("spool", spool.FILE_NAME, spool.WRITES, "")
_QUEUES = {queue.name: queue for queue in (OUTBOX, SPOOL)}


def read_outgoing(home: Path, limit: int) -> list[dict[str, Any]]:
    """Return the messages of both queues, what is set aside first, then the oldest first."""
    rows = []
    for queue in _QUEUES.values():
        with _opened(home, queue) as db:
            if db is not None:
                rows += [_row(queue, entry) for entry in queue.table.entries(db, limit)]
    rows.sort(key=lambda row: (row["state"] == "waiting", -row["age_seconds"]))
    return rows[:limit]


def count_outgoing(home: Path) -> dict[str, Counts]:
    """Return how many messages wait and are set aside, by queue."""
    counts = {}
    for queue in _QUEUES.values():
        with _opened(home, queue) as db:
            counts[queue.name] = Counts(0, 0) if db is None else queue.table.count(db)
    return counts


def send_again(home: Path, names: Sequence[str] | None) -> int:
    """Let messages that are set aside be sent again, all without names; return how many."""
    if names is None:
        changed = 0
        for queue in _QUEUES.values():
            with _opened(home, queue, write=True) as db:
                changed += 0 if db is None else queue.table.send_again(db, None)
        return changed
    for queue, identifier in [_parsed(name) for name in names]:
        with _opened(home, queue, write=True) as db:
            if db is None or not queue.table.send_again(db, identifier):
                raise HpcAgentError(
                    f"{queue.name}:{identifier} is not set aside: what waits is sent by itself "
                    "(`hpc-agent outgoing` lists both)"
                )
    return len(names)


def drop(home: Path, names: Sequence[str]) -> int:
    """Forget messages, whether they are set aside or wait; return how many."""
    for queue, identifier in [_parsed(name) for name in names]:
        with _opened(home, queue, write=True) as db:
            if db is None or not queue.table.drop(db, identifier):
                raise HpcAgentError(
                    f"no message {queue.name}:{identifier}: see `hpc-agent outgoing`"
                )
    return len(names)


def _parsed(name: str) -> tuple[_Queue, int]:
    queue, _, identifier = name.partition(":")
    if queue not in _QUEUES or not identifier.isdecimal() or len(identifier) > 18:
        raise HpcAgentError(f"no message {name!r}: ids are like outbox:12 or spool:7")
    return _QUEUES[queue], int(identifier)


def _row(queue: _Queue, entry: Entry) -> dict[str, Any]:
    is_of_run = entry.stream.startswith(queue.stream_prefix)
    return {
        "id": f"{queue.name}:{entry.id}",
        "state": "set aside" if entry.is_set_aside else "waiting",
        "what": entry.kind,
        "deployment": entry.deployment,
        "run": entry.stream.removeprefix(queue.stream_prefix) if is_of_run else None,
        "stream": entry.stream,
        "age_seconds": max(time.time() - entry.since, 0.0),
        "size": entry.size,
        "reason": entry.reason,
    }


@contextlib.contextmanager
def _opened(
    home: Path, queue: _Queue, *, write: bool = False
) -> Iterator[sqlite3.Connection | None]:
    """Open a queue's database, None when there is no spool yet. Raises StoreError."""
    path = home / queue.file
    if not path.exists():
        if queue is OUTBOX:
            raise StoreError(
                f"{path} does not exist: no agent has run with this home directory yet"
            )
        yield None
        return
    try:
        with contextlib.closing(
            sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}",
                uri=True,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
            )
        ) as connection:
            yield connection
            if write:
                ring(home)
    except sqlite3.Error as error:
        old = "no such" in str(error)
        hint = (
            ": it is of an older hpc-agent; the next start of the agent updates it" if old else ""
        )
        raise StoreError(f"{path}: {error}{hint}") from error
