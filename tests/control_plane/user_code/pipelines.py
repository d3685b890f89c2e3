"""User code that the stock agent runs in test_stock_agent.py."""

import time
from pathlib import Path

import dagster as dg

daily = dg.StaticPartitionsDefinition(["a", "b"])


class Settings(dg.Config):
    """Where a run leaves its mark, so that a test can see that it has really started."""

    started: str = ""


@dg.asset
def numbers() -> dg.MaterializeResult[None]:
    print("a line on stdout")
    return dg.MaterializeResult(metadata={"rows": 3})


@dg.asset(deps=[numbers])
def total(context: dg.AssetExecutionContext) -> None:
    record = context.instance.get_latest_materialization_event(dg.AssetKey("numbers"))
    assert record is not None and record.asset_materialization is not None
    context.log.info(f"rows: {record.asset_materialization.metadata['rows'].value}")


@dg.asset(partitions_def=daily)
def parted() -> None: ...


@dg.asset_check(asset=numbers)
def has_rows() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.op
def wait_forever(config: Settings) -> None:
    Path(config.started).touch()
    time.sleep(600)


@dg.job
def endless() -> None:
    wait_forever()


@dg.sensor(
    job_name="sums", minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING
)
def watcher(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    context.update_cursor(str(int(context.cursor or 0) + 1))
    return dg.SkipReason(f"cursor was {context.cursor}")


@dg.schedule(cron_schedule="0 0 1 1 *", job_name="sums")
def yearly() -> dg.RunRequest:
    return dg.RunRequest(tags={"made": "by schedule"})


defs = dg.Definitions(
    assets=[numbers, total, parted],
    asset_checks=[has_rows],
    jobs=[dg.define_asset_job("sums", ["numbers", "total"]), endless],
    sensors=[watcher],
    schedules=[yearly],
)
