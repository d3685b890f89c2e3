"""Jobs of a user, for runs with the slurm executor."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagster import (
    DynamicOut,
    DynamicOutput,
    Failure,
    In,
    JobDefinition,
    Nothing,
    OpExecutionContext,
    Out,
    Output,
    RetryPolicy,
    graph,
    job,
    op,
)

from dagster_hpc import PipesSlurmClient, SlurmOptions, slurm_executor

JOB = SlurmOptions(cpus_per_task=1, mem="1G").tags()
HERE = {"dagster-hpc/step": "in_process"}
PROCESS = {"dagster-hpc/step": "process"}
SRUN = {"dagster-hpc/step": "srun"}
GROUP = {"dagster-hpc/group": "together"}
BESIDE = Path(os.environ.get("TEST_DIRECTORY", "/nonexistent"))
"""Where ops leave word of what they have done."""


def note(context: OpExecutionContext, word: str = "ran") -> None:
    """Leave word of an op in the directory of the test: who, when, in which process."""
    with (BESIDE / f"{context.op.name}.{word}").open("a") as file:
        file.write(f"{os.getpid()}\n")


def times(name: str, word: str = "ran") -> int:
    path = BESIDE / f"{name}.{word}"
    return len(path.read_text().splitlines()) if path.exists() else 0


@op(tags=HERE)
def here(context: OpExecutionContext) -> int:
    note(context)
    return 1


@op(tags=PROCESS)
def beside(context: OpExecutionContext, value: int) -> int:
    note(context)
    return value + 1


@op(tags=JOB)
def alone(context: OpExecutionContext, value: int) -> int:
    note(context)
    return value + 1


@op(tags=SRUN)
def stepped(context: OpExecutionContext, value: int) -> int:
    note(context)
    return value + 1


@op
def unmarked(context: OpExecutionContext, one: int, other: int) -> int:
    note(context)
    return one + other


@job(executor_def=slurm_executor)
def places() -> None:
    alone(beside(here()))


@op(out=DynamicOut(), tags=HERE)
def fan_out(context: OpExecutionContext):  # type: ignore[no-untyped-def]
    for number in range(int(os.environ.get("TEST_WIDTH", "3"))):
        yield DynamicOutput(number, mapping_key=str(number))


@op(tags=JOB)
def mapped(context: OpExecutionContext, value: int) -> int:
    note(context)
    return value


@op(tags=HERE)
def collected(context: OpExecutionContext, values: list[int]) -> int:
    note(context, f"sum-{sum(values)}")
    return sum(values)


@job(executor_def=slurm_executor)
def fan() -> None:
    collected(fan_out().map(mapped).collect())


@op(tags=GROUP)
def first(context: OpExecutionContext) -> int:
    note(context)
    return 1


@op(tags=GROUP)
def second(context: OpExecutionContext, value: int) -> int:
    note(context)
    return value + 1


@op(tags=GROUP)
def third(context: OpExecutionContext, value: int, outside: int) -> int:
    note(context)
    return value + outside


@op(tags=HERE)
def after(context: OpExecutionContext, value: int) -> None:
    note(context)


@job(executor_def=slurm_executor)
def group() -> None:
    after(third(second(first()), here()))


@job(executor_def=slurm_executor)
def group_of_two() -> None:
    second(first.alias("one_first")())
    first.alias("other_first")()


@job(executor_def=slurm_executor)
def groups_across() -> None:
    """Two groups, each of which needs a step of the other one."""
    other = {"dagster-hpc/group": "other"}
    one = first.alias("one_first")()
    two = first.alias("other_first").tag(other)()
    second.alias("one_second")(two)
    second.alias("other_second").tag(other)(one)


@op(tags=GROUP)
def second_waits(context: OpExecutionContext, value: int) -> int:
    note(context)
    while not (BESIDE / "go").exists():
        time.sleep(0.05)
    return value


@job(executor_def=slurm_executor)
def group_waits() -> None:
    third(second_waits(first()), here())
    first.alias("other_first")()


@op(tags=PROCESS)
def between(context: OpExecutionContext, value: int) -> int:
    return value


@job(executor_def=slurm_executor)
def circle() -> None:
    second(between(first()))


@op(tags=GROUP, retry_policy=RetryPolicy(max_retries=1))
def second_at_second(context: OpExecutionContext, value: int) -> int:
    note(context)
    if context.retry_number == 0:
        raise Failure("the first time")
    return value


@op(tags=GROUP)
def second_dies(context: OpExecutionContext, value: int) -> int:
    note(context)
    os._exit(7)


@job(executor_def=slurm_executor)
def group_dies() -> None:
    third(second_dies(first()), here())


@op(tags=GROUP, out=Out(int, is_required=False))
def first_has_none(context: OpExecutionContext):  # type: ignore[no-untyped-def]
    note(context)
    if os.environ.get("TEST_HAS_SOME"):
        yield Output(1)


@job(executor_def=slurm_executor)
def group_skips() -> None:
    after(second(first_has_none()))


@op(tags=JOB)
def exits(context: OpExecutionContext) -> None:
    print("it was good", flush=True)
    os.write(2, b"")
    os._exit(3)


@op(tags=JOB, retry_policy=RetryPolicy(max_retries=1))
def killed_once(context: OpExecutionContext) -> None:
    note(context)
    if times("killed_once") == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@op(tags=JOB)
def raises(context: OpExecutionContext) -> None:
    raise ValueError("the user's own")


@op(ins={"start": In(Nothing)}, tags=JOB)
def never(context: OpExecutionContext) -> None:
    note(context)


@job(executor_def=slurm_executor)
def mixed() -> None:
    """All places, a group of which a step is tried again, and bad ends."""
    one = here()
    unmarked(alone(beside(one)), stepped(one))
    third(second_at_second(first()), one)
    never(exits())
    killed_once()
    raises()


@op(tags=JOB)
def long_job(context: OpExecutionContext) -> None:
    note(context)
    try:
        time.sleep(600)
    finally:
        note(context, "cleaned")


@op(tags=PROCESS)
def long_process(context: OpExecutionContext) -> None:
    note(context)
    while not (BESIDE / "go").exists():
        time.sleep(0.05)
    note(context, "done")


@job(executor_def=slurm_executor)
def long() -> None:
    long_job()
    long_process()


@op(tags={"dagster-hpc/mem": "much", "dagster-hpc/step": "jbo"})
def misspelt(context: OpExecutionContext) -> None:
    note(context)


@graph
def wrong_graph() -> None:
    misspelt()


def wrong() -> JobDefinition:
    return wrong_graph.to_job(name="wrong", executor_def=slurm_executor)


@op(pool="narrow", tags=JOB)
def in_pool(context: OpExecutionContext) -> None:
    note(context)
    beginning = time.time()
    time.sleep(0.5)
    with (BESIDE / "spans").open("a") as file:
        file.write(f"{beginning} {time.time()}\n")


@job(executor_def=slurm_executor)
def pooled() -> None:
    in_pool.alias("in_pool_1")()
    in_pool.alias("in_pool_2")()


@op(tags=SlurmOptions(partition="closed").tags(), retry_policy=RetryPolicy(max_retries=3))
def on_closed(context: OpExecutionContext) -> None:
    note(context)


@op(tags=HERE)
def one() -> int:
    return 1


@job(executor_def=slurm_executor)
def refused() -> None:
    on_closed()
    alone(one())


SOLVER = """
if [ "$DAGSTER_RETRY_NUMBER" = 0 ]; then
  trap 'sleep 1; exit 0' INT
  echo $$ >"$TEST_DIRECTORY/solver.ran"
  sleep 60 & wait
fi
! kill -0 "$(cat "$TEST_DIRECTORY/solver.ran")" && touch "$TEST_DIRECTORY/solver.alone"
"""


def die_while_it_solves() -> None:
    while not times("solver"):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


@op(tags=JOB, retry_policy=RetryPolicy(max_retries=1))
def solving(context: OpExecutionContext) -> None:
    if context.retry_number == 0:
        threading.Thread(target=die_while_it_solves).start()
    PipesSlurmClient().run(context=context, command=["bash", "-c", SOLVER])


@job(executor_def=slurm_executor)
def solved_twice() -> None:
    solving()


@op(tags=HERE, out=Out(int))
def rejecting(context: OpExecutionContext) -> Iterator[Any]:
    """Yield what Dagster refuses, while a program goes on."""
    program = 'echo $$ >"$TEST_DIRECTORY/refused.ran"; sleep 60'
    for _ in PipesSlurmClient().stream(
        context=context, command=["bash", "-c", MATERIALIZES + program]
    ):
        yield Output("no number")


MATERIALIZES = '. "$DAGSTER_HPC_PIPES_SH"; DAGSTER_ASSET_KEY=made dagster_materialize rows:int=1; '


@job(executor_def=slurm_executor)
def rejected() -> None:
    rejecting()
