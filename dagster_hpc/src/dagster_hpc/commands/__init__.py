"""Commands of any language as jobs: Dagster Pipes, batch scripts, checkpoints."""
