"""Calls on ``GraphQLRunStorage``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from dagster import DagsterRunStatus, RunsFilter
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.execution.telemetry import RunTelemetryData
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.dagster_run import DagsterRun, JobBucket, TagBucket
from dagster._core.storage.tags import ROOT_RUN_ID_TAG
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo

from hpc_agent.conformance.case import CaseOf, StorageCase
from hpc_agent.conformance.history import BROKEN, ORDERS
from hpc_agent.conformance.sides import Side

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SOON = timedelta(hours=1)
EARLIER_RUN = "7a2f6a5e-0000-4000-8000-000000000001"
HISTORICAL_RUN = "7a2f6a5e-0000-4000-8000-000000000002"
ORIGIN = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__")
_Case = partial(CaseOf, "runs")


def _first(side: Side) -> DagsterRun:
    return side.history.runs[0].run


def _run(side: Side, run_id: str) -> DagsterRun | None:
    # Of all storages, only the client's own looks up single runs.
    found: DagsterRun | None = (
        side.runs.get_run_by_id(run_id) if side.is_client else side.instance.get_run_by_id(run_id)
    )
    return found


def _tags(side: Side, run_id: str) -> object:
    run = _run(side, run_id)
    return run and run.tags


def _derived(side: Side, run_id: str) -> DagsterRun:
    """Return a retry of the first run."""
    tags = {ROOT_RUN_ID_TAG: _first(side).run_id, "attempt": "2"}
    return _first(side)._replace(
        run_id=run_id, tags=tags, root_run_id=_first(side).run_id,
        parent_run_id=_first(side).run_id,
    )  # fmt: skip


def _add_run(side: Side) -> object:
    side.runs.add_run(_derived(side, EARLIER_RUN))
    return _run(side, EARLIER_RUN)


def _add_historical_run(side: Side) -> object:
    side.runs.add_historical_run(_derived(side, HISTORICAL_RUN), LONG_AGO)
    record = side.runs.get_run_records(RunsFilter(run_ids=[HISTORICAL_RUN]))[0]
    return record.dagster_run, record.create_timestamp.timestamp()


def _run_without_snapshot(side: Side) -> object:
    run = _derived(side, "7a2f6a5e-0000-4000-8000-000000000003")
    return side.runs.add_run(run._replace(job_snapshot_id="0" * 40))


def _add_tags(side: Side) -> object:
    side.runs.add_run_tags(_first(side).run_id, {"team": "ops", "source": "changed"})
    return _tags(side, _first(side).run_id)


def _replace_origin(side: Side) -> object:
    run = _run(side, _first(side).run_id)
    side.runs.replace_job_origin(run, ORIGIN.get_job_origin("other"))
    changed = _run(side, _first(side).run_id)
    return changed and changed.remote_job_origin


def _page_after_second(side: Side) -> object:
    ids = side.runs.get_run_ids()
    return side.runs.get_run_ids(cursor=ids[1], limit=3)


def _backfill(number: int, status: BulkActionStatus) -> PartitionBackfill:
    return PartitionBackfill(
        backfill_id=f"backfill{number}", status=status, from_failure=False,
        tags={"who": "conformance"}, backfill_timestamp=1_700_000_000.0 + number,
        asset_selection=[ORDERS], title=f"number {number}",
        partition_set_origin=ORIGIN.get_partition_set_origin("orders_partition_set"),
        partition_names=["a", "b"],
    )  # fmt: skip


def _add_backfills(side: Side) -> object:
    for number, status in enumerate(
        (BulkActionStatus.REQUESTED, BulkActionStatus.COMPLETED, BulkActionStatus.REQUESTED)
    ):
        side.runs.add_backfill(_backfill(number, status))
    return side.runs.get_backfills()


def _update_backfill(side: Side) -> object:
    side.runs.update_backfill(_backfill(0, BulkActionStatus.FAILED))
    return side.runs.get_backfill("backfill0")


def _heartbeat(side: Side) -> object:
    error = SerializableErrorInfo("lost", ["stack\n"], "OSError")
    side.runs.add_daemon_heartbeat(DaemonHeartbeat(1_700_000_000.0, "SENSOR", "id", [error]))
    return side.runs.get_daemon_heartbeats()


def _telemetry(side: Side) -> object:
    telemetry = RunTelemetryData(run_id=_first(side).run_id, datapoints={})
    # SQLite's own storage keeps none and says so; the gateway takes it and drops it.
    return side.runs.add_run_telemetry(telemetry, {"a": "b"}) if side.is_client else None


def _add_snapshots(side: Side) -> object:
    recorded = side.history.run_of("reporting")
    job = side.runs.add_job_snapshot(recorded.job)
    plan = side.runs.add_execution_plan_snapshot(recorded.plan)
    return job, plan


def _lookups() -> list[StorageCase]:
    by_id, has_run, group = _Case("get_run_by_id"), _Case("has_run"), _Case("get_run_group")
    return [
        by_id("a run that succeeded", lambda side: _run(side, _first(side).run_id)),
        by_id("a run that failed", lambda side: _run(side,
            side.history.run_of(BROKEN).run.run_id)),
        by_id("no such run", lambda side: _run(side, "nothing")),
        has_run("yes", lambda side: side.runs.has_run(_first(side).run_id)),
        has_run("no", lambda side: side.runs.has_run("nothing")),
        group("a run with a retry", lambda side: side.runs.get_run_group(EARLIER_RUN)),
        group("a run alone", lambda side: side.runs.get_run_group(_first(side).run_id)),
    ]  # fmt: skip


def _listings() -> list[StorageCase]:
    runs, ids = _Case("get_runs"), _Case("get_run_ids")
    count, records = _Case("get_runs_count"), _Case("get_run_records")
    now = datetime.now(UTC)
    failed = RunsFilter(statuses=[DagsterRunStatus.FAILURE])
    tagged = RunsFilter(tags={"source": ["conformance", "other"]})
    buckets = TagBucket(tag_key="dagster/partition", tag_values=["a", "b"], bucket_limit=1)
    return [
        runs("all, newest first", lambda side: side.runs.get_runs()),
        runs("ascending with a limit", lambda side: side.runs.get_runs(limit=2, ascending=True)),
        runs("of a job", lambda side: side.runs.get_runs(RunsFilter(job_name="reporting"))),
        runs("one per partition", lambda side: side.runs.get_runs(bucket_by=buckets)),
        runs("one per job", lambda side: side.runs.get_runs(
            bucket_by=JobBucket(job_names=["reporting"], bucket_limit=1))),
        runs("of a snapshot", lambda side: side.runs.get_runs(
            RunsFilter(snapshot_id=_first(side).job_snapshot_id))),
        ids("all", lambda side: side.runs.get_run_ids()),
        ids("a page after the second", _page_after_second),
        ids("by a tag of several values", lambda side: side.runs.get_run_ids(tagged)),
        ids("by status", lambda side: side.runs.get_run_ids(failed)),
        count("all", lambda side: side.runs.get_runs_count()),
        count("failed", lambda side: side.runs.get_runs_count(failed)),
        count("none of these ids", lambda side: side.runs.get_runs_count(
            RunsFilter(run_ids=["nothing"]))),
        records("ordered by update time", lambda side: side.runs.get_run_records(
            order_by="update_timestamp", limit=3)),
        records("ascending", lambda side: side.runs.get_run_records(ascending=True, limit=4)),
        records("created and updated within the hour", lambda side: side.runs.get_run_records(
            RunsFilter(created_after=now - SOON, created_before=now + SOON,
                       updated_after=now - SOON, updated_before=now + SOON))),
        records("created long ago", lambda side: side.runs.get_run_records(
            RunsFilter(created_before=LONG_AGO + SOON))),
        records("one per partition", lambda side: side.runs.get_run_records(bucket_by=buckets)),
    ]  # fmt: skip


def _tags_and_snapshots() -> list[StorageCase]:
    tags, job = _Case("get_run_tags"), _Case("has_job_snapshot")
    plan = _Case("has_execution_plan_snapshot")
    return [
        tags("two keys", lambda side: side.runs.get_run_tags(["source", "team"])),
        tags("with a prefix", lambda side: side.runs.get_run_tags(
            ["dagster/partition"], value_prefix="a", limit=5)),
        _Case("get_run_tag_keys")("all", lambda side: sorted(side.runs.get_run_tag_keys())),
        job("yes", lambda side: side.runs.has_job_snapshot(_first(side).job_snapshot_id)),
        job("no", lambda side: side.runs.has_job_snapshot("0" * 40)),
        _Case("get_job_snapshot")("of a run", lambda side: side.runs.get_job_snapshot(
            _first(side).job_snapshot_id)),
        plan("yes", lambda side: side.runs.has_execution_plan_snapshot(
            _first(side).execution_plan_snapshot_id)),
        plan("no", lambda side: side.runs.has_execution_plan_snapshot("0" * 40)),
        _Case("get_execution_plan_snapshot")("of a run", lambda side:
            side.runs.get_execution_plan_snapshot(_first(side).execution_plan_snapshot_id)),
        _Case("add_job_snapshot")("the same again", _add_snapshots),
        _Case("add_execution_plan_snapshot")("the same again", _add_snapshots),
        _Case("get_run_partition_data")("of a partition set", lambda side: sorted(
            side.runs.get_run_partition_data(RunsFilter(tags={"dagster/partition": "a"})),
            key=str)),
    ]  # fmt: skip


def _writes() -> list[StorageCase]:
    add = _Case("add_run")
    return [
        add("a retry", _add_run),
        add(
            "the same again",
            lambda side: side.runs.add_run(_derived(side, EARLIER_RUN)),
            refused=True,
        ),
        add("without its job's snapshot", _run_without_snapshot, refused=True),
        _Case("add_historical_run")("years ago", _add_historical_run),
        _Case("add_run_tags")("new and changed", _add_tags),
        _Case("replace_job_origin")("to another job", _replace_origin),
        _Case("add_daemon_heartbeat")("with an error", _heartbeat),
        _Case("get_daemon_heartbeats")("all", lambda side: side.runs.get_daemon_heartbeats()),
        _Case("add_run_telemetry")("taken", _telemetry),
    ]


def _backfills() -> list[StorageCase]:
    get, one = _Case("get_backfills"), _Case("get_backfill")
    requested = BulkActionStatus.REQUESTED
    return [
        _Case("add_backfill")("three", _add_backfills),
        get("by status", lambda side: side.runs.get_backfills(status=requested)),
        get("a page", lambda side: side.runs.get_backfills(cursor="backfill2", limit=1)),
        get("by a filter", lambda side: side.runs.get_backfills(
            BulkActionsFilter(statuses=[requested], created_after=LONG_AGO))),
        one("one", lambda side: side.runs.get_backfill("backfill1")),
        _Case("update_backfill")("failed", _update_backfill),
    ]  # fmt: skip


RUN_CASES = [*_writes(), *_lookups(), *_listings(), *_tags_and_snapshots(), *_backfills()]
