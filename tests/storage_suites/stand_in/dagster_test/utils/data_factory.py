"""Runs for tests."""

from __future__ import annotations

from typing import Any

from dagster import DagsterRun
from dagster._core.utils import make_new_run_id


def dagster_run(run_id: str | None = None, job_name: str = "job_name", **fields: Any) -> DagsterRun:
    """Make a run with an id of its own."""
    return DagsterRun(job_name=job_name, run_id=run_id or make_new_run_id(), **fields)
