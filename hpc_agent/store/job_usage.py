"""What jobs have used, kept as long as their workers: reports are made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlite_utils import Database


def keep(db: Database, key: str, figures: Mapping[str, Any], assets: Sequence[str]) -> None:
    """Keep what a worker's job has used, and the assets that its run has materialized."""
    db.execute(
        "INSERT OR REPLACE INTO job_usage (key, figures, assets) VALUES (?, ?, ?)",
        [key, json.dumps(figures), json.dumps(list(assets))],
    )


def ended_since(db: Database, since: float) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Return figures and assets of workers that have ended since then, by key."""
    found = db.execute(
        "SELECT u.key, u.figures, u.assets FROM job_usage AS u JOIN workers AS w ON w.key = u.key "
        "WHERE w.ended_at >= ?",
        [since],
    )
    return {key: (json.loads(figures), json.loads(assets)) for key, figures, assets in found}
