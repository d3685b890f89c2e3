"""A history to read back: runs that really happened, recorded once and written to both sides."""

# No postponed annotations: Dagster reads the type of ``context`` when it decorates.

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import AssetCheckKey, AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events.log import EventLogEntry
from dagster._core.snap import ExecutionPlanSnapshot, JobSnap

PARTITIONS = ("a", "b", "c", "d")
DYNAMIC = "customers"
ORDERS = AssetKey(["shop", "orders"])
SUMMARY = AssetKey("summary")
VISITS = AssetKey("visits")
BROKEN = AssetKey("broken")
ASSETS = (ORDERS, SUMMARY, VISITS, BROKEN)
NOT_EMPTY = AssetCheckKey(ORDERS, "not_empty")
PLAUSIBLE = AssetCheckKey(SUMMARY, "plausible")
ASSET_TAG = "asset"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dg.asset(
    key=ORDERS,
    partitions_def=dg.StaticPartitionsDefinition(list(PARTITIONS)),
    check_specs=[dg.AssetCheckSpec(NOT_EMPTY.name, asset=ORDERS)],
    pool="database",
)
def orders(context: dg.AssetExecutionContext) -> Iterator[object]:
    context.log.info("reading orders of %s", context.partition_key)
    yield dg.AssetCheckResult(check_name=NOT_EMPTY.name, passed=context.partition_key != "b")
    yield dg.MaterializeResult(
        asset_key=ORDERS,
        metadata={"rows": 3, "query": dg.MetadataValue.md("`select`")},
        data_version=dg.DataVersion(f"v-{context.partition_key}"),
        tags={"quality": "good"},
    )


@dg.asset(key=SUMMARY, check_specs=[dg.AssetCheckSpec(PLAUSIBLE.name, asset=SUMMARY)])
def summary() -> Iterator[object]:
    yield dg.AssetObservation(asset_key=SUMMARY, metadata={"seen": 1.5})
    yield dg.AssetCheckResult(
        check_name=PLAUSIBLE.name, passed=False, severity=dg.AssetCheckSeverity.WARN
    )
    yield dg.MaterializeResult(asset_key=SUMMARY)


@dg.asset(key=VISITS, partitions_def=dg.DynamicPartitionsDefinition(name=DYNAMIC))
def visits() -> None: ...


@dg.asset(key=BROKEN, partitions_def=dg.StaticPartitionsDefinition(list(PARTITIONS)))
def broken() -> None:
    raise RuntimeError("this asset always fails") from ValueError("for a reason")


@dg.op
def count() -> int:
    return 1


@dg.op
def report(context: dg.OpExecutionContext, number: int) -> None:
    context.log_event(dg.ExpectationResult(success=number > 0, label="positive"))


@dg.job(tags={"team": "sales"})
def reporting() -> None:
    report(count())


defs = dg.Definitions(assets=[orders, summary, visits, broken], jobs=[reporting])


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run as it was made, and its events in the order in which they came."""

    run: DagsterRun
    job: JobSnap
    plan: ExecutionPlanSnapshot
    events: Sequence[EventLogEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The recorded runs, oldest first, and partitions to add."""

    runs: Sequence[RecordedRun]
    dynamic_partitions: Sequence[str] = ("ada", "grace", "mary")

    def run_of(self, what: AssetKey | str) -> RecordedRun:
        """Return the first run of an asset or of a job."""
        for recorded in self.runs:
            tag = recorded.run.tags.get(ASSET_TAG)
            if what == recorded.run.job_name or (tag and what == AssetKey.from_db_string(tag)):
                return recorded
        raise LookupError(f"no run of {what}")


def record_history() -> History:
    """Run everything against a throw-away instance and note what it wrote."""
    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DYNAMIC, ["ada"])
        for partition in ("a", "b", "a", "c"):
            _materialize(instance, orders, partition)
        _materialize(instance, summary)
        _materialize(instance, visits, "ada")
        for partition in ("a", "b"):
            _materialize(instance, broken, partition)
        for _ in range(2):
            reporting.execute_in_process(instance=instance, run_config=QUIET)
        oldest_first = list(reversed(list(instance.get_runs())))
        return History(runs=[_recorded(instance, run) for run in oldest_first])


def _materialize(
    instance: DagsterInstance, asset: dg.AssetsDefinition, partition: str | None = None
) -> None:
    tags = {"source": "conformance", ASSET_TAG: asset.key.to_string()}
    dg.materialize(
        [asset], instance=instance, partition_key=partition, raise_on_error=False, tags=tags,
        run_config=QUIET,
    )  # fmt: skip


def _recorded(instance: DagsterInstance, run: DagsterRun) -> RecordedRun:
    if run.job_snapshot_id is None or run.execution_plan_snapshot_id is None:
        raise LookupError(f"run {run.run_id} was made without snapshots")
    return RecordedRun(
        run=run.with_status(DagsterRunStatus.NOT_STARTED),
        job=instance.run_storage.get_job_snapshot(run.job_snapshot_id),
        plan=instance.run_storage.get_execution_plan_snapshot(run.execution_plan_snapshot_id),
        events=instance.all_logs(run.run_id),
    )
