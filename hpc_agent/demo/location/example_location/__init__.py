"""An ordinary Dagster project: needs dagster and nothing of hpc-agent."""
