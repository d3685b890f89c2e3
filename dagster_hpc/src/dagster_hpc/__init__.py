"""Steps of a Dagster run, and commands that are not Python, as Slurm jobs."""

from dagster_hpc.commands.checkpoint import Checkpoint
from dagster_hpc.commands.pipes import PipesSlurmClient
from dagster_hpc.commands.script_assets import slurm_script_asset
from dagster_hpc.commands.scripts import SlurmScript
from dagster_hpc.options import SlurmOptions
from dagster_hpc.steps.executor import slurm_executor

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "PipesSlurmClient",
    "SlurmOptions",
    "SlurmScript",
    "slurm_executor",
    "slurm_script_asset",
]
