"""The Dagster hybrid agent for HPC."""

__version__ = "0.1.0"
