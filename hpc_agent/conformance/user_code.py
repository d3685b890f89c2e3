"""User code that has one of everything an agent may be asked for."""

# No postponed annotations: Dagster reads the type of ``context`` when it decorates.

import time

import dagster as dg

PATIENCE_SECONDS = 600


@dg.op
def work() -> None: ...


@dg.op
def wait() -> None:
    """Go on until somebody terminates the run."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.1)


@dg.static_partitioned_config(
    partition_keys=["a", "b"], tags_for_partition_key_fn=lambda key: {"letter": key}
)
def by_letter(_key: str) -> dict[str, object]:
    return {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dg.job(config=by_letter)
def lettered() -> None:
    work()


@dg.job
def patient() -> None:
    wait()


@dg.schedule(cron_schedule="0 0 * * *", job=patient)
def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest(tags={"at": context.scheduled_execution_time.isoformat()})


@dg.sensor(job=patient)
def watcher(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return dg.SkipReason(f"nothing after {context.cursor}")


defs = dg.Definitions(jobs=[lettered, patient], schedules=[nightly], sensors=[watcher])
