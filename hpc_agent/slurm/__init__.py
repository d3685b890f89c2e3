"""A Slurm client that knows nothing of Dagster or of the agent."""
