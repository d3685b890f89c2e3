"""User code whose process is killed while its command goes on."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster_hpc.commands.pipes import PipesSlurmClient

# It goes on when the test says so, by files in the directory that it names.
PROGRAM = """
import os, sys, time
from dagster_pipes import open_dagster_pipes

def wait_for(name):
    while not os.path.exists(os.path.join(os.environ["STAGES"], name)):
        time.sleep(0.02)

with open_dagster_pipes() as pipes:
    for number in range(20):
        pipes.log.info(f"before {number}")
    pipes.report_asset_materialization(metadata={"rows": 1}, asset_key="first")
    pipes.report_asset_check("is_whole", passed=True, asset_key="first")
    print("printed before", flush=True)
    wait_for("go on")
    for number in range(20):
        pipes.log.info(f"after {number}")
    pipes.report_asset_materialization(metadata={"rows": 2}, asset_key="second")
    print("printed after", flush=True)
    wait_for("end")
"""


@dg.multi_asset(
    specs=[dg.AssetSpec("first"), dg.AssetSpec("second")],
    check_specs=[dg.AssetCheckSpec("is_whole", asset="first")],
)
def made(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Two assets and a check that one command reports."""
    yield from PipesSlurmClient().stream(
        context=context,
        command=[sys.executable, "-c", PROGRAM],
        environment={"STAGES": os.environ["STAGES"]},
    )


defs = dg.Definitions(assets=[made])
