"""Who starts jobs: the agent, this machine, or Slurm's own commands."""
