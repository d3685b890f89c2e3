"""The temperature of the plate: an asset that is made by an MPI program."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import dagster as dg
import numpy as np

from .picture import markdown_of


class Plate(dg.Config):
    """How finely to compute: inner points of a side, and steps in time."""

    points: int = 127
    steps: int = 500


@dg.asset(
    kinds={"numpy", "slurm"},
    op_tags={
        "dagster-hpc/nodes": "2",
        "dagster-hpc/ntasks-per-node": "1",
        "dagster-hpc/mem": "1G",
        "dagster-hpc/time": "00:10:00",
    },
)
def temperature(context: dg.AssetExecutionContext, config: Plate) -> None:
    """How hot each point of the plate is in the end."""
    output = Path("results", context.run_id, "temperature.npy")
    output.parent.mkdir(parents=True, exist_ok=True)
    run_solver(config, output)
    summary = json.loads(output.with_suffix(".json").read_text())
    context.add_output_metadata(
        {
            "picture": dg.MetadataValue.md(markdown_of(np.load(output))),
            "path": dg.MetadataValue.path(output),
            "nodes": ", ".join(summary["nodes"]),
            "ranks": summary["ranks"],
            "seconds": summary["seconds"],
            "error": summary["error"],
        }
    )


def run_solver(config: Plate, output: Path) -> None:
    """Start a rank on each task of the job, or on each core outside Slurm; wait for all."""
    launcher = shlex.split(os.environ.get("MPI_LAUNCHER", "mpirun"))
    program = (sys.executable, "-m", "heat.solver", "--output", str(output))
    size = ("--points", str(config.points), "--steps", str(config.steps))
    subprocess.run([*launcher, *program, *size], check=True)
