"""Agent and control plane as services: systemd, cron, or for the agent a Slurm job."""
