"""Steps of a Dagster run, and commands that are not Python, as Slurm jobs."""

from dagster_hpc.checkpoint import Checkpoint
from dagster_hpc.executor import slurm_executor
from dagster_hpc.options import SlurmOptions
from dagster_hpc.pipes import PipesSlurmClient
from dagster_hpc.script_assets import slurm_script_asset
from dagster_hpc.scripts import SlurmScript

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "PipesSlurmClient",
    "SlurmOptions",
    "SlurmScript",
    "slurm_executor",
    "slurm_script_asset",
]
