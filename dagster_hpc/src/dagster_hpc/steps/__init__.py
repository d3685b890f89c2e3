"""The executor: each step of a run in its place."""
