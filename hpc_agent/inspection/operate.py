"""Commands to a running agent: given through its database, and a ring of its bell."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.doorbell import ring
from hpc_agent.errors import HpcAgentError, StoreError
from hpc_agent.inspection.names import find_worker
from hpc_agent.store import commands, draining, meta
from hpc_agent.store.commands import EXPIRE_SECONDS, CommandKind
from hpc_agent.store.database import FILE_NAME, read_only

_LOOK_SECONDS = 0.2
_BUSY_SECONDS = 10.0


def carry_out(
    config: AgentConfig,
    kind: CommandKind,
    subject: Mapping[str, Any],
    *,
    wait_seconds: float = EXPIRE_SECONDS / 2,
) -> str:
    """Let the running agent do something and return what it says.

    Raises HpcAgentError when no agent runs, when it does not answer in time (what it has not begun
    with by then it does not do later either), and when what is asked for cannot be done.
    """
    with _opened(config.home) as db:
        if meta.holder(db, time.time()) is None:
            raise HpcAgentError(
                f"no agent runs with the home directory {config.home}, so that nobody can do this: "
                "`hpc-agent start` starts it"
            )
        identity = commands.give(db, kind, subject, time.time())
        ring(config.home)
        until = time.monotonic() + wait_seconds
        while (outcome := commands.outcome_of(db, identity)) is None:
            if time.monotonic() > until:
                is_withdrawn = commands.take_back(db, identity)
                later = "will not do it later" if is_withdrawn else "is at it still"
                raise HpcAgentError(
                    f"the agent does not answer within {wait_seconds:.0f} s, and {later}: its log "
                    "says what it is doing"
                )
            time.sleep(_LOOK_SECONDS)
    words, failed = outcome
    if failed:
        raise HpcAgentError(words)
    return words


def cancel(config: AgentConfig, name: str) -> str:
    """Let the agent end a run, by any of its names. Raises HpcAgentError."""
    worker = find_worker(read_only(config.home), name)
    return carry_out(config, CommandKind.CANCEL, {"key": worker.key})


def adopt(
    config: AgentConfig, job_ids: Sequence[str] | None, *, dry_run: bool
) -> list[dict[str, Any]]:
    """Let the agent take over jobs that it does not know, all without ids; return one row each.

    With ``dry_run`` it only says which there are, and why not. Raises HpcAgentError.
    """
    subject = {"job_ids": None if job_ids is None else list(job_ids), "dry_run": dry_run}
    rows: list[dict[str, Any]] = json.loads(carry_out(config, CommandKind.ADOPT, subject))
    return rows


def read_left_to_finish(config: AgentConfig) -> dict[str, int]:
    """Return what an agent that drains still has to finish, by what it is."""
    return draining.left_to_finish(read_only(config.home))


@contextlib.contextmanager
def _opened(home: Path) -> Iterator[Database]:
    path = home / FILE_NAME
    if not path.exists():
        raise StoreError(f"{path} does not exist: no agent has run with this home directory yet")
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        ) as connection:
            yield Database(connection)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
