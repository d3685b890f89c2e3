"""Facts about the agent that runs, or ran, with this home directory."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hpc_agent.config import AgentConfig
from hpc_agent.doctor.facts import AgentFacts
from hpc_agent.relay.spool import FILE_NAME as SPOOL_FILE
from hpc_agent.store import meta
from hpc_agent.store.database import FILE_NAME

_NONE_YET = AgentFacts(
    running_on=None,
    damage=None,
    messages_waiting=0,
    oldest_message_seconds=0.0,
    refused_messages=0,
    spooled_events=0,
    rejected_events=0,
)


def gather_agent(config: AgentConfig) -> AgentFacts:
    """Read the state databases beside an agent that may run. Blocking calls: for a thread."""
    if not (config.home / FILE_NAME).exists():
        return _NONE_YET
    try:
        return _read(config.home)
    except sqlite3.Error as error:
        return replace(_NONE_YET, damage=str(error))


def _read(home: Path) -> AgentFacts:
    now = time.time()
    with _opened(home / FILE_NAME) as state:
        (verdict,) = state.execute("PRAGMA quick_check(1)").fetchone()
        lease = state.execute("SELECT host, heartbeat_at FROM lease").fetchone()
        messages, oldest = state.execute(
            "SELECT count(*), min(created_at) FROM outbox WHERE refused IS NULL"
        ).fetchone()
        (refused,) = state.execute(
            "SELECT count(*) FROM outbox WHERE refused IS NOT NULL"
        ).fetchone()
    spooled, oldest_event, rejected = _spool(home / SPOOL_FILE)
    since = min((at for at in (oldest, oldest_event) if at is not None), default=now)
    alive = lease is not None and now - lease[1] < meta.LEASE_SECONDS
    return AgentFacts(
        running_on=lease[0] if alive else None,
        damage=None if verdict == "ok" else str(verdict),
        messages_waiting=messages,
        oldest_message_seconds=now - since,
        refused_messages=refused,
        spooled_events=spooled,
        rejected_events=rejected,
    )


def _spool(path: Path) -> tuple[int, float | None, int]:
    """Return how many event writes wait, since when, and how many were refused."""
    if not path.exists():
        return 0, None, 0
    with _opened(path) as spool:
        columns = [name for _, name, *_ in spool.execute("PRAGMA table_info(writes)")]
        if "refused" not in columns:  # of an older agent, which this version has not started yet
            return 0, None, 0
        waiting, oldest = spool.execute(
            "SELECT count(*), min(spooled_at) FROM writes WHERE refused IS NULL"
        ).fetchone()
        (rejected,) = spool.execute(
            "SELECT count(*) FROM writes WHERE refused IS NOT NULL"
        ).fetchone()
    return waiting, oldest, rejected


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        yield connection
    finally:
        connection.close()
