"""What a template imports in these tests; a line in ``imported`` for each process that did so."""

import os
from pathlib import Path

import dagster as dg
import numpy as np

with (Path(__file__).parent / "imported").open("a") as file:
    file.write(f"{os.getpid()}\n")


@dg.op
def add() -> int:
    return int(np.add(1, 1))


@dg.job(executor_def=dg.in_process_executor)
def sums() -> None:
    add()


defs = dg.Definitions(jobs=[sums])
