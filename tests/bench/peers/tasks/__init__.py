"""Many tasks that do nothing, each by another tool on the same Slurm."""
