"""Steps of a Dagster run, and commands that are not Python, as Slurm jobs."""

from dagster_hpc.executor import slurm_executor
from dagster_hpc.options import SlurmOptions

__version__ = "0.1.0"

__all__ = ["SlurmOptions", "slurm_executor"]
