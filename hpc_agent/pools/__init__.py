"""Warm pools: allocations that run many runs and steps (docs/pools.md)."""
