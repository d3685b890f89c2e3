"""What starts runs by itself: a schedule, and conditions evaluated on either side."""

import dagster as dg

from .tables import orders


@dg.op
def nothing() -> None:
    """Be a run, quickly."""


@dg.job(description="A job of one op.", tags={"team": "sales"}, metadata={"page": "jobs"})
def tiny() -> None:
    """Run one op."""
    nothing()


@dg.schedule(
    job=tiny,
    cron_schedule="* * * * *",
    execution_timezone="Europe/Berlin",
    description="Once, at the next minute.",
    tags={"pace": "minute"},
)
def next_minute() -> dg.RunRequest:
    """Ask for the same run each minute: only the first tick gets it."""
    return dg.RunRequest(run_key="once", tags={"asked-by": "next_minute"})


def _follower(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        group_name=name,
        deps=[orders],
        automation_condition=dg.AutomationCondition.eager(),
    )
    def follower() -> dg.MaterializeResult:  # type: ignore[type-arg]
        return dg.MaterializeResult(metadata={"follows": "orders"})

    return follower


followers = [_follower("seen_by_daemon"), _follower("seen_by_user_code")]

sensors = [
    dg.AutomationConditionSensorDefinition(
        f"{asset.key.to_user_string()}_sensor",
        target=dg.AssetSelection.assets(asset.key),
        minimum_interval_seconds=3,
        use_user_code_server=asset.key.to_user_string() == "seen_by_user_code",
        run_tags={"asked-by": asset.key.to_user_string()},
    )
    for asset in followers
]
