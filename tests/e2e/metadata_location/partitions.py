"""An asset for each kind of partitions, and two to backfill."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_date="2026-01-21")
REGIONS = dg.StaticPartitionsDefinition(["north", "south", "west"])
CUSTOMERS = dg.DynamicPartitionsDefinition(name="customers")


@dg.asset(group_name="partitioned", partitions_def=REGIONS)
def by_region() -> None:
    """Static partitions."""


@dg.asset(
    group_name="partitioned",
    partitions_def=dg.MultiPartitionsDefinition({"day": DAYS, "region": REGIONS}),
)
def by_day_and_region() -> None:
    """Two dimensions of partitions."""


@dg.asset(group_name="partitioned", partitions_def=CUSTOMERS)
def by_customer() -> None:
    """Partitions that are added as they appear."""


@dg.asset(group_name="partitioned", partitions_def=DAYS)
def by_day(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One run for each day of a backfill."""
    return dg.MaterializeResult(metadata={"day": context.partition_key})


@dg.asset(
    group_name="partitioned",
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def by_day_at_once(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One run for all days of a backfill."""
    return dg.MaterializeResult(metadata={"days": len(context.partition_keys)})
