"""A code location that does not load."""
