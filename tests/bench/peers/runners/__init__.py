"""What executes Dagster runs: each in a module of its own, side by side."""
