"""Warm pools, the agent's side."""
