"""What a run has told, as the tests look at it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg


def messages(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """Return the log messages of user code and of commands."""
    entries = instance.all_logs(run_id)
    return [entry.user_message for entry in entries if entry.dagster_event is None]


def materializations(
    instance: dg.DagsterInstance, run_id: str
) -> list[tuple[str, dict[str, object]]]:
    """Return each materialization's asset and plain metadata."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    found = []
    for entry in entries:
        assert entry.asset_materialization is not None
        key = entry.asset_materialization.asset_key.to_user_string()
        found.append((key, plain(entry.asset_materialization.metadata)))
    return found


def checks(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str, bool]]:
    """Return each check's name and whether it has passed."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    told = (entry.get_dagster_event().asset_check_evaluation_data for entry in entries)
    return [(each.check_name, each.passed) for each in told]


def failure(result: dg.ExecuteInProcessResult) -> dg.StepFailureData:
    """Return what the only step that failed has failed with."""
    (event,) = only(result.all_events, dg.DagsterEventType.STEP_FAILURE)
    return event.step_failure_data


def only(events: Iterable[dg.DagsterEvent], kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    """Return the events of one kind."""
    return [event for event in events if event.event_type is kind]


def plain(metadata: Any) -> dict[str, object]:
    """Return metadata by label."""
    return {label: value.value for label, value in metadata.items()}
