"""What the control plane said when it launched a run: a later attempt is planned from the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlite_utils import Database


def keep(db: Database, run_id: str, deployment: str, arguments: Mapping[str, Any]) -> None:
    """Keep what LAUNCH_RUN said of a run; purged with the last of its jobs."""
    db.execute(
        "INSERT OR REPLACE INTO launches (run_id, deployment, arguments) VALUES (?, ?, ?)",
        [run_id, deployment, json.dumps(arguments)],
    )


def find(db: Database, run_id: str) -> dict[str, Any] | None:
    """Return the arguments with which a run was launched."""
    row = db.execute("SELECT arguments FROM launches WHERE run_id = ?", [run_id]).fetchone()
    return json.loads(row[0]) if row else None


def forget(db: Database, run_id: str) -> None:
    """Forget how a run was launched."""
    db.execute("DELETE FROM launches WHERE run_id = ?", [run_id])
