"""What starts runs by itself, and what starts them again."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

cities = dg.DynamicPartitionsDefinition(name="cities")


@dg.asset(partitions_def=cities)
def weather(context: dg.AssetExecutionContext) -> str:
    """Of a city that becomes known later."""
    return str(context.partition_key)


weather_job = dg.define_asset_job("weather_job", [weather], partitions_def=cities)


@dg.sensor(job=weather_job, minimum_interval_seconds=1)
def finds_cities() -> dg.SensorResult:
    """Add a partition and ask for it."""
    return dg.SensorResult(
        run_requests=[dg.RunRequest(partition_key="Zürich / 1", run_key="zurich")],
        dynamic_partitions_requests=[cities.build_add_request(["Zürich / 1"])],
    )


@dg.op
def adds_cities(context: dg.OpExecutionContext) -> None:
    """From within a run."""
    context.instance.add_dynamic_partitions("cities", ["Oslo", "Rome"])
    context.log.info(f"there is Oslo: {context.instance.has_dynamic_partition('cities', 'Oslo')}")


@dg.job(executor_def=dg.in_process_executor)
def adding_cities() -> None:
    """One process."""
    adds_cities()


@dg.op
def does_nothing() -> None:
    """Do nothing."""


@dg.job(executor_def=dg.in_process_executor)
def requested() -> None:
    """What is asked for by the hundred."""
    does_nothing()


@dg.sensor(job=requested, minimum_interval_seconds=1)
def asks_for_many(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Two hundred runs in one tick, which wait in the queue."""
    if context.cursor:
        return dg.SkipReason("asked before")
    tags = {"flood": "yes"}
    requests = [dg.RunRequest(run_key=str(number), tags=tags) for number in range(200)]
    return dg.SensorResult(run_requests=requests, cursor="asked")


@dg.run_failure_sensor(monitor_all_code_locations=True, minimum_interval_seconds=1)
def sees_failures(context: dg.RunFailureSensorContext) -> None:
    """Of every location."""
    directory = Path(os.environ["HPC_AGENT_DEMO_DATA"])
    directory.mkdir(exist_ok=True)
    (directory / f"failed-{context.dagster_run.run_id}").write_text(
        f"{context.dagster_run.job_name}: {context.failure_event.message}"
    )


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[dg.JobSelector(location_name="elsewhere", job_name="adding_cities")],
    request_job=requested,
    minimum_interval_seconds=1,
)
def follows(context: dg.RunStatusSensorContext) -> dg.RunRequest:
    """After a job of another location, a job of this one."""
    return dg.RunRequest(run_key=context.dagster_run.run_id, tags={"after": "elsewhere"})


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1, delay=0.5))
def crashes_once(context: dg.OpExecutionContext) -> None:
    """Its process is killed the first time."""
    if context.retry_number == 0:
        os.kill(os.getpid(), signal.SIGKILL)


@dg.op
def wants_a_retry(context: dg.OpExecutionContext) -> None:
    """A second later."""
    if context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1, seconds_to_wait=1)


@dg.job(executor_def=dg.multiprocess_executor)
def retrying_steps() -> None:
    """By policy and by request."""
    crashes_once()
    wants_a_retry()


@dg.op
def succeeds_once() -> int:
    """Is not executed again."""
    return 1


@dg.op(pool="licence")
def kills_its_worker(context: dg.OpExecutionContext, value: int) -> None:
    """While it holds the pool's only slot; the run that takes its place does not."""
    if context.run.parent_run_id is None:
        os.kill(os.getpid(), signal.SIGKILL)


@dg.job(
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "1", "dagster/retry_strategy": "FROM_FAILURE"},
)
def retrying_runs() -> None:
    """By the daemon."""
    kills_its_worker(succeeds_once())


@dg.op
def waits() -> None:
    """Until it is ended."""
    signal.pause()


@dg.job(executor_def=dg.in_process_executor, tags={"dagster/max_runtime": "3"})
def too_long() -> None:
    """Longer than it may."""
    waits()


@dg.resource
def hangs_in_the_end(_: dg.InitResourceContext) -> Iterator[int]:
    """Whose teardown takes forever."""
    yield 1
    threading.Event().wait()


@dg.op(required_resource_keys={"hanging"})
def uses_a_resource() -> None:
    """Do nothing with it."""


@dg.job(
    executor_def=dg.in_process_executor,
    resource_defs={"hanging": hangs_in_the_end},
    tags={"dagster/max_runtime": "3"},
)
def endless_teardown() -> None:
    """Its step succeeds."""
    uses_a_resource()


@dg.schedule(job=requested, cron_schedule="30 2 * * *", execution_timezone="Europe/Berlin")
def early(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """At a time that one night lacks and another has twice."""
    return dg.RunRequest(tags={"moment": context.scheduled_execution_time.isoformat()})


defs = dg.Definitions(
    assets=[weather],
    jobs=[
        weather_job,
        adding_cities,
        requested,
        retrying_steps,
        retrying_runs,
        too_long,
        endless_teardown,
    ],
    sensors=[finds_cities, asks_for_many, sees_failures, follows],
    schedules=[early],
)
