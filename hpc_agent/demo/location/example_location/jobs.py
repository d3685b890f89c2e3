"""Jobs: one that makes the assets, one that takes its time, one that fails."""
# ruff: noqa: T201 - printed lines are what the example's compute logs consist of

import sys
import time

import dagster as dg

# What Slurm should give the job, in the notation of the agent; others ignore these tags.
SHORT = {"dagster-hpc/time": "00:10:00"}

weather_job = dg.define_asset_job(
    "weather_job",
    selection=dg.AssetSelection.groups("weather"),
    description="Read, clean and summarize the temperatures.",
    tags=SHORT,
)

archive_job = dg.define_asset_job(
    "archive_job",
    selection=dg.AssetSelection.groups("archive"),
    description="Archive the extremes of one day.",
    tags=SHORT,
)


class Nap(dg.Config):
    """How long to sleep."""

    seconds: int = 60


@dg.op
def sleep_and_tell(context: dg.OpExecutionContext, config: Nap) -> int:
    """Sleep one second at a time and print each; end early when the run is terminated."""
    end = time.monotonic() + config.seconds
    slept = 0
    try:
        while time.monotonic() < end:
            print(f"slept {slept} of {config.seconds} s", flush=True)
            time.sleep(min(1.0, config.seconds))
            slept += 1
    finally:
        print(f"woke up after {slept} s", file=sys.stderr, flush=True)
    context.log.info("slept %d s", slept)
    return slept


@dg.job(description="Sleep for a configured time: something to watch and to terminate.", tags=SHORT)
def sleepy_job() -> None:
    sleep_and_tell()


@dg.op
def fail_with_a_reason() -> None:
    """Fail as user code fails: with a message and facts."""
    raise dg.Failure(
        "the model diverged at step 3",
        metadata={"step": 3, "residual": dg.MetadataValue.float(1e9)},
        allow_retries=False,
    )


@dg.job(description="Fail, to see how a failure looks.", tags=SHORT)
def failing_job() -> None:
    fail_with_a_reason()
