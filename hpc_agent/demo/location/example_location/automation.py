"""What starts runs by itself: a schedule and a sensor, both stopped until somebody starts them."""

from collections.abc import Iterator

import dagster as dg

from .jobs import sleepy_job, weather_job
from .storage import data_directory

every_morning = dg.ScheduleDefinition(
    name="every_morning",
    job=weather_job,
    cron_schedule="0 6 * * *",
    execution_timezone="UTC",
    description="Make the weather assets each morning.",
)


@dg.schedule(job=sleepy_job, cron_schedule="* * * * *", execution_timezone="UTC")
def every_minute(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Run a short job each minute: something to see without waiting for the morning."""
    moment = context.scheduled_execution_time.strftime("%Y-%m-%dT%H:%M")
    return dg.RunRequest(
        run_key=moment,
        run_config={"ops": {"sleep_and_tell": {"config": {"seconds": 1}}}},
        tags={"moment": moment},
    )


@dg.sensor(job=weather_job, minimum_interval_seconds=10)
def new_request_file(
    context: dg.SensorEvaluationContext,
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Start a run for each file that appears in the data directory's ``requests``."""
    directory = data_directory() / "requests"
    seen = context.cursor or ""
    new = sorted(path.name for path in directory.glob("*") if path.name > seen)
    if not new:
        yield dg.SkipReason(f"no new file in {directory}")
        return
    for name in new:
        yield dg.RunRequest(run_key=name, tags={"request": name})
    context.update_cursor(new[-1])
