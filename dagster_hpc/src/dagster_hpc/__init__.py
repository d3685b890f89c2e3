"""Steps of a Dagster run, and commands that are not Python, as Slurm jobs."""

__version__ = "0.1.0"
