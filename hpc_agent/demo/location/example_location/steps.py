"""A job whose steps are jobs of Slurm themselves: for those who have installed dagster-hpc."""
# ruff: noqa: T201 - printed lines are what the example's compute logs consist of

import os

import dagster as dg

from dagster_hpc import SlurmOptions, slurm_executor


@dg.op
def find_sizes() -> list[int]:
    """Runs in the job of the run: it asks for nothing."""
    return [100_000, 200_000]


@dg.op(tags=SlurmOptions(time="00:10:00", cpus_per_task=1).tags())
def count_primes(context: dg.OpExecutionContext, sizes: list[int]) -> int:
    """Runs in a job of its own, since its tags say what it needs."""
    largest = max(sizes)
    sieve = bytearray([1]) * largest
    sieve[:2] = b"\0\0"
    for number in range(2, int(largest**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, largest, number)))
    found = sum(sieve)
    print(f"{found} primes, in job {os.environ.get('SLURM_JOB_ID', 'none')}", flush=True)
    context.log.info("%d primes below %d", found, largest)
    return found


@dg.job(
    executor_def=slurm_executor,
    description="Count primes in a step with a Slurm job of its own.",
    tags={"dagster-hpc/time": "00:10:00"},
)
def stepwise_job() -> None:
    count_primes(find_sizes())
