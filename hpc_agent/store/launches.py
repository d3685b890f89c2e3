"""What the control plane said when it launched a run: a later attempt is planned from the same."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from pydantic import TypeAdapter, ValidationError
from sqlite_utils import Database

from hpc_agent.dagster_plus.requests import RunToLaunch

# Fields that only another version knows are not read.
_KEPT = TypeAdapter(RunToLaunch)


def keep(db: Database, run: RunToLaunch, deployment: str) -> None:
    """Keep what LAUNCH_RUN said of a run, without its selection; purged with its last job."""
    kept = asdict(replace(run, selection=None))
    db.execute(
        "INSERT OR REPLACE INTO launches (run_id, deployment, arguments) VALUES (?, ?, ?)",
        [run.run_id, deployment, json.dumps(kept)],
    )


def find(db: Database, run_id: str) -> RunToLaunch | None:
    """Return a run as it was launched.

    None when that is not known any more, or was kept so that this version cannot read it.
    """
    row = db.execute("SELECT arguments FROM launches WHERE run_id = ?", [run_id]).fetchone()
    try:
        return _KEPT.validate_json(row[0]) if row else None
    except ValidationError:
        return None


def forget(db: Database, run_id: str) -> None:
    """Forget how a run was launched."""
    db.execute("DELETE FROM launches WHERE run_id = ?", [run_id])
