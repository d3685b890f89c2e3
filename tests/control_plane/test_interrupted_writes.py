"""An event whose write broke off somewhere is whole once it is written again, and is there once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster import DagsterEvent, DagsterEventType, DagsterInstance
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    JobFailureData,
    RunFailureReason,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from sqlalchemy.exc import DBAPIError

from hpc_agent.control_plane.events import EventWriter
from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.idempotency import IdempotencyKeys
from tests.control_plane.conftest import on_both_databases
from tests.control_plane.definitions import new_run

pytestmark = on_both_databases

KEY = dg.AssetKey("table")
CHECK = AssetCheckEvaluation(
    asset_key=KEY, check_name="rows", passed=True, metadata={}, blocking=False
)
DATA: dict[DagsterEventType, Any] = {
    DagsterEventType.RUN_SUCCESS: None,
    DagsterEventType.RUN_FAILURE: JobFailureData(
        error=None, failure_reason=RunFailureReason.STEP_FAILURE
    ),
    DagsterEventType.ASSET_MATERIALIZATION: StepMaterializationData(
        dg.AssetMaterialization(KEY, tags={"dagster/data_version": "1"})
    ),
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED: AssetMaterializationPlannedData(KEY),
    DagsterEventType.ASSET_OBSERVATION: AssetObservationData(
        dg.AssetObservation(KEY, tags={"dagster/data_version": "1"})
    ),
    DagsterEventType.ASSET_CHECK_EVALUATION: CHECK,
}


def entry_of(run_id: str, kind: DagsterEventType) -> EventLogEntry:
    event = DagsterEvent(
        event_type_value=kind.value,
        job_name="work",
        message="told",
        event_specific_data=DATA[kind],
        step_key=None if DATA[kind] is None or "RUN" in kind.name else "do",
    )
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None, level=10, user_message="", run_id=run_id, timestamp=time.time(),
        step_key=event.step_key, job_name="work", dagster_event=event,
    )  # fmt: skip


@contextmanager
def without(instance: DagsterInstance, part: str, table: str, column: str) -> Iterator[None]:
    """Let a table be short of a column, of what is kept of runs or of the events of all runs."""
    runs: Any = instance.run_storage
    events: Any = instance.event_log_storage
    connect = {"runs": runs.connect, "events": events.index_connection}[part]
    for old, new in ((column, "away"), ("away", column)):
        with connect() as connection:
            connection.execute(sa.text(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}"))
        if new == "away":
            yield


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        (DagsterEventType.RUN_SUCCESS, ("runs", "runs", "run_body")),
        (DagsterEventType.RUN_SUCCESS, ("events", "event_logs", "event")),
        (DagsterEventType.RUN_FAILURE, ("runs", "runs", "run_body")),
        (DagsterEventType.ASSET_MATERIALIZATION, ("events", "event_logs", "event")),
        (DagsterEventType.ASSET_MATERIALIZATION, ("events", "asset_keys", "last_run_id")),
        (DagsterEventType.ASSET_MATERIALIZATION_PLANNED, ("events", "event_logs", "event")),
        (DagsterEventType.ASSET_OBSERVATION, ("events", "asset_keys", "asset_key")),
        (DagsterEventType.ASSET_CHECK_EVALUATION, ("events", "event_logs", "event")),
        (
            DagsterEventType.ASSET_CHECK_EVALUATION,
            ("events", "asset_check_executions", "check_name"),
        ),
    ],
    ids=lambda value: getattr(value, "name", "-".join(value)),
)
async def test_write_that_broke_off_is_completed(
    gateway: Gateway, database: Database, kind: DagsterEventType, missing: tuple[str, str, str]
) -> None:
    """Whatever was missing of it, and nothing of it is there twice, however often it comes."""
    instance: DagsterInstance = gateway.services.instance
    run = new_run(instance, dg.DagsterRunStatus.STARTED)
    writer, entry = EventWriter(instance, IdempotencyKeys(database)), entry_of(run.run_id, kind)
    with without(instance, *missing), pytest.raises(DBAPIError):
        writer.write([entry], "k")
    for _ in range(2):
        writer.write([entry], "k")
    assert instance.all_logs(run.run_id) == [entry]
    assert seen(instance, run.run_id, kind) == WHOLE[kind]


@pytest.mark.parametrize("kind", DATA, ids=lambda kind: str(kind.name))
async def test_write_whose_end_alone_was_lost_changes_nothing(
    gateway: Gateway, database: Database, kind: DagsterEventType
) -> None:
    """All of it is there."""
    instance: DagsterInstance = gateway.services.instance
    run = new_run(instance, dg.DagsterRunStatus.STARTED)
    keys, entry = IdempotencyKeys(database), entry_of(run.run_id, kind)
    with pytest.raises(ZeroDivisionError), keys.once("k"):
        instance.handle_new_event(entry)
        raise ZeroDivisionError
    EventWriter(instance, keys).write([entry], "k")
    assert instance.all_logs(run.run_id) == [entry]
    assert seen(instance, run.run_id, kind) == WHOLE[kind]


async def test_materialization_is_completed_after_later_events_of_its_asset(
    gateway: Gateway, database: Database
) -> None:
    """Another run is about to materialize it: that says nothing of what it was last."""
    instance: DagsterInstance = gateway.services.instance
    runs = [new_run(instance, dg.DagsterRunStatus.STARTED) for _ in range(2)]
    entry = entry_of(runs[0].run_id, DagsterEventType.ASSET_MATERIALIZATION)
    writer = EventWriter(instance, IdempotencyKeys(database))
    with (
        without(instance, "events", "asset_keys", "last_run_id"),
        pytest.raises(DBAPIError),
    ):
        writer.write([entry], "k")
    writer.write([entry_of(runs[1].run_id, DagsterEventType.ASSET_MATERIALIZATION_PLANNED)], "l")
    writer.write([entry], "k")
    (record,) = instance.get_asset_records([KEY])
    assert record.asset_entry.last_materialization == entry
    assert seen(instance, runs[0].run_id, DagsterEventType.ASSET_MATERIALIZATION)[0] is True
    assert tags_stored(instance) == 1


async def test_completed_write_undoes_no_later_status(gateway: Gateway, database: Database) -> None:
    """A monitor has failed the run meanwhile."""
    instance: DagsterInstance = gateway.services.instance
    run = new_run(instance, dg.DagsterRunStatus.STARTING)
    writer = EventWriter(instance, IdempotencyKeys(database))
    canceling = entry_of(run.run_id, DagsterEventType.RUN_SUCCESS)
    with without(instance, "runs", "runs", "run_body"), pytest.raises(DBAPIError):
        writer.write([canceling], "k")
    instance.report_run_failed(run, "Its worker is gone.")
    writer.write([canceling], "k")
    stored = instance.get_run_by_id(run.run_id)
    assert stored
    assert stored.status is dg.DagsterRunStatus.FAILURE


def tags_stored(instance: DagsterInstance) -> int:
    events: Any = instance.event_log_storage
    with events.index_connection() as connection:
        return int(connection.scalar(sa.text("SELECT count(*) FROM asset_event_tags")))


def seen(instance: DagsterInstance, run_id: str, kind: DagsterEventType) -> list[Any]:
    """Return what Dagster tells of an event beyond the log of its run."""
    log = instance.event_log_storage
    if kind is DagsterEventType.ASSET_MATERIALIZATION:
        records = instance.fetch_materializations(KEY, limit=10).records
        tags = log.get_event_tags_for_asset(KEY)
        assert tags_stored(instance) == 1
        return [log.has_asset_key(KEY), len(records), [dict(each) for each in tags]]
    if kind in {DagsterEventType.ASSET_MATERIALIZATION_PLANNED, DagsterEventType.ASSET_OBSERVATION}:
        return [log.has_asset_key(KEY), tags_stored(instance)]
    if kind is DagsterEventType.ASSET_CHECK_EVALUATION:
        history = log.get_asset_check_execution_history(CHECK.asset_check_key, limit=10)
        return [each.status.name for each in history]
    run = instance.get_run_by_id(run_id)
    assert run
    changes = log.fetch_run_status_changes(kind, limit=10).records
    will_retry = run.tags.get("dagster/will_retry")
    return [run.status.name, len(changes), will_retry]


WHOLE: dict[DagsterEventType, list[Any]] = {
    DagsterEventType.RUN_SUCCESS: ["SUCCESS", 1, None],
    DagsterEventType.RUN_FAILURE: ["FAILURE", 1, "false"],
    DagsterEventType.ASSET_MATERIALIZATION: [True, 1, [{"dagster/data_version": "1"}]],
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED: [True, 0],
    DagsterEventType.ASSET_OBSERVATION: [True, 1],
    DagsterEventType.ASSET_CHECK_EVALUATION: ["SUCCEEDED"],
}
