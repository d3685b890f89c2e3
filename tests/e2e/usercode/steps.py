"""Ops that start steps of the job, as MPI programs are started."""

import os
import subprocess
import tempfile
from pathlib import Path

import dagster as dg


def output_of(*argv: str) -> str:
    """Return what a command prints."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@dg.op
def starts_steps(context: dg.OpExecutionContext) -> None:
    """On two nodes, with the environment of this process."""
    os.environ["SET_BY_USER_CODE"] = "yes"
    script = "echo $SLURMD_NODENAME $SET_BY_USER_CODE ${PATH%%:*}"
    context.log.info(output_of("srun", "--nodes=2", "--ntasks=2", "sh", "-c", script))
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "out")
        for text in ("first", "second"):
            output_of("srun", "--nodes=1", "--ntasks=1", f"--output={file}", "echo", text)
        context.log.info(f"the file has {file.read_text().split()}")


@dg.op
def starts_mpi(context: dg.OpExecutionContext) -> None:
    """Open MPI starts its daemons by srun."""
    mpi = ["mpirun", "--allow-run-as-root", "-np", "2", "--map-by", "node", "--oversubscribe"]
    program = ["/usr/bin/python3", "-m", "mpi4py.bench", "helloworld"]
    context.log.info(output_of(*mpi, *program))


@dg.job(executor_def=dg.in_process_executor)
def job_steps() -> None:
    """Steps of Slurm."""
    starts_steps()


@dg.job(executor_def=dg.in_process_executor)
def mpi_program() -> None:
    """A program that waits for its peers."""
    starts_mpi()


defs = dg.Definitions(jobs=[job_steps, mpi_program])
