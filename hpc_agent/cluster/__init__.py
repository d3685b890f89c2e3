"""The cluster that agent.yaml names: its scheduler, its files, its account."""
