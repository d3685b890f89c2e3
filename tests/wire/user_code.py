"""The code location that both agents serve."""

import time
from collections.abc import Mapping

import dagster as dg

letters = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset
def numbers() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 3})


@dg.op
def spell(context: dg.OpExecutionContext) -> str:
    return context.partition_key


@dg.op
def print_letter(letter: str) -> None:
    print(letter)


def _config(partition_key: str) -> Mapping[str, object]:
    if partition_key not in {"a", "b"}:
        raise ValueError(f"no such letter: {partition_key}")
    return {"ops": {}}


@dg.job(
    partitions_def=letters,
    config=dg.PartitionedConfig(
        letters,
        run_config_for_partition_key_fn=_config,
        tags_for_partition_key_fn=lambda key: {"k": key},
    ),
)
def spelling() -> None:
    print_letter(spell())


class Nap(dg.Config):
    """How long to sleep."""

    seconds: float = 600.0


@dg.op
def sleep(config: Nap) -> None:
    time.sleep(config.seconds)


@dg.job
def endless() -> None:
    sleep()


@dg.schedule(cron_schedule="0 0 1 1 *", job_name="sums")
def yearly() -> dg.RunRequest:
    return dg.RunRequest(tags={"made": "by schedule"})


@dg.sensor(job_name="sums", minimum_interval_seconds=3600)
def watcher(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return dg.SkipReason(f"cursor was {context.cursor}")


@dg.sensor(job_name="sums", minimum_interval_seconds=3600)
def failing() -> None:
    raise ValueError("a sensor that fails on purpose")


defs = dg.Definitions(
    assets=[numbers],
    jobs=[dg.define_asset_job("sums", ["numbers"]), spelling, endless],
    sensors=[watcher, failing],
    schedules=[yearly],
)
