"""User code whose commands are jobs of a real Slurm, submitted by sbatch."""

import os
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster_hpc.commands.checkpoint import Checkpoint
from dagster_hpc.commands.pipes import PipesSlurmClient
from dagster_hpc.commands.script_assets import slurm_script_asset
from dagster_hpc.commands.scripts import SlurmScript
from dagster_hpc.options import SlurmOptions

slurm = PipesSlurmClient(options=SlurmOptions(mem="100M", time="00:05:00"))


@dg.asset
def field(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Made by a compiled program of two ranks that srun starts."""
    # Of one node: two nodes on one machine have Slurm's PMIx make the same directory in /tmp.
    yield from slurm.stream(
        context=context,
        command=[os.environ["RANKS"]],
        mpi="pmix",
        options=SlurmOptions(nodes="1", ntasks="2"),
    )


@dg.asset
def wide_field(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Made by the same program on two nodes; mpirun asks Slurm for the other one."""
    yield from slurm.stream(
        context=context,
        command=["mpirun", os.environ["RANKS"]],
        options=SlurmOptions(nodes="2", ntasks_per_node="1"),
    )


LONG = """
trap 'dagster_log info warned; touch "$DAGSTER_HPC_CHECKPOINT_DIRECTORY/half"; exit 85' TERM
if [ -e "$DAGSTER_HPC_CHECKPOINT_DIRECTORY/half" ]; then exit 0; fi
scontrol update JobId="$SLURM_JOB_ID" TimeLimit=1
sleep 300 & wait
"""


@dg.asset
def long_one(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Made in two jobs: the first one has too little time."""
    yield from slurm.stream(
        context=context,
        command=["bash", "-c", f'. "$DAGSTER_HPC_PIPES_SH"\n{LONG}'],
        checkpoint=Checkpoint(warning_seconds=50),
    )


solution = slurm_script_asset(
    SlurmScript("solve.sbatch", outputs={"nodes": "nodes.txt"}), client=slurm
)

defs = dg.Definitions(assets=[field, wide_field, long_one, solution])
