"""One run with steps in every place: the run's own job, jobs, an array, MPI on two nodes."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_hpc import (
    PipesSlurmClient,
    SlurmOptions,
    SlurmScript,
    slurm_executor,
    slurm_script_asset,
)

SMALL = SlurmOptions(cpus_per_task=1, mem="100M", time="5").tags()


def place() -> str:
    """Say in which job of Slurm this process is."""
    return os.environ.get("SLURM_JOB_ID", "none")


@dg.op(tags={"dagster-hpc/step": "in_process"})
def lists() -> list[int]:
    """In the process of the run worker."""
    return [1, 2, 3, 4]


@dg.op(out=dg.DynamicOut(int), tags={"dagster-hpc/step": "process"})
def numbers(context: dg.OpExecutionContext, listed: list[int]) -> Iterator[dg.DynamicOutput[int]]:
    """In a process beside it."""
    context.log.info(f"numbers in {place()}")
    for number in listed:
        yield dg.DynamicOutput(number, mapping_key=str(number))


@dg.op(tags=SMALL)
def squared(context: dg.OpExecutionContext, number: int) -> int:
    """In a task of an array."""
    print(f"squaring {number}")
    context.log.info(f"squared in {place()}")
    return number * number


@dg.op(tags={"dagster-hpc/step": "srun", **SlurmOptions(cpus_per_task=1).tags()})
def added(context: dg.OpExecutionContext, squares: list[int]) -> int:
    """In a step of the run's own job."""
    context.log.info(f"added in {place()} step {os.environ.get('SLURM_STEP_ID')}")
    return sum(squares)


@dg.op(tags=SlurmOptions(nodes="2", ntasks=2, cpus_per_task=1, mem="100M").tags())
def on_two_nodes(context: dg.OpExecutionContext, total: int) -> None:
    """In a job of two nodes, which starts a program on both."""
    hosts = subprocess.run(
        ["srun", "sh", "-c", "echo $SLURMD_NODENAME"], capture_output=True, text=True, check=True
    ).stdout.split()
    context.log.info(f"total {total} on {sorted(hosts)}")


@dg.job(executor_def=slurm_executor)
def everywhere() -> None:
    """Each step where its tags say."""
    on_two_nodes(added(numbers(lists()).map(squared).collect()))


@dg.op(tags=SMALL)
def fails(context: dg.OpExecutionContext) -> None:
    """Dies without a word of Dagster's."""
    print("about to die", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


@dg.op(tags=SMALL)
def sleeps(context: dg.OpExecutionContext, seconds: int = 600) -> None:
    """Goes on until somebody ends it."""
    print("sleeping", flush=True)
    time.sleep(seconds)


@dg.job(executor_def=slurm_executor)
def dying() -> None:
    """One step whose process is killed."""
    fails()


@dg.job(executor_def=slurm_executor)
def endless() -> None:
    """One step that has to be ended."""
    sleeps()


@dg.op(tags=SMALL)
def slow(context: dg.OpExecutionContext) -> int:
    """Takes a while, and leaves a trace each time that it is executed."""
    traces = Path(os.environ["HPC_AGENT_ARTIFACTS"], "traces")
    traces.parent.mkdir(parents=True, exist_ok=True)
    with traces.open("a") as file:
        file.write(f"slow {context.run_id}\n")
    time.sleep(12)
    return 1


@dg.op(tags=SMALL)
def after(context: dg.OpExecutionContext, one: int) -> None:
    """Is executed by whichever run worker is there then."""
    context.log.info(f"after {one}")


@dg.job(executor_def=slurm_executor, tags={"dagster-hpc/on-preempt": "requeue"})
def outlived() -> None:
    """Its run worker dies while a step goes on."""
    after(slow())


@dg.asset(kinds={"slurm"})
def solved(context: dg.AssetExecutionContext, solver: PipesSlurmClient) -> Iterator[Any]:
    """A program of bash that reports by Dagster Pipes."""
    script = (
        '. "$DAGSTER_HPC_PIPES_SH"; dagster_log info solving; echo "printed by bash"; '
        "dagster_materialize residual:float=0.5"
    )
    yield from solver.stream(context=context, command=["bash", "-c", script], options=SMALL)


@dg.asset(kinds={"slurm"})
def greeted(context: dg.AssetExecutionContext, solver: PipesSlurmClient) -> Any:
    """A program on two nodes."""
    return solver.run(
        context=context,
        command=["sh", "-c", "echo hello from $SLURMD_NODENAME"],
        options=SlurmOptions(nodes="2", ntasks=2, mem="100M"),
        mpi=True,
    ).get_materialize_result()


@dg.asset(kinds={"slurm"})
def told(context: dg.AssetExecutionContext, solver: PipesSlurmClient) -> Iterator[Any]:
    """A program that goes on telling while its op's process dies."""
    script = (
        '. "$DAGSTER_HPC_PIPES_SH"; for number in {1..50}; do dagster_log info "told $number"; '
        "sleep 0.5; done; dagster_materialize numbers:int=50"
    )
    yield from solver.stream(context=context, command=["bash", "-c", script], options=SMALL)


telling = dg.define_asset_job(
    "telling",
    selection=[told],
    executor_def=slurm_executor,
    tags={"dagster-hpc/on-preempt": "requeue"},
)

counted = slurm_script_asset(SlurmScript(str(Path(__file__).parent / "batch" / "count.sbatch")))

defs = dg.Definitions(
    assets=[solved, greeted, told, counted],
    jobs=[everywhere, dying, endless, outlived, telling],
    resources={"solver": PipesSlurmClient()},
)
