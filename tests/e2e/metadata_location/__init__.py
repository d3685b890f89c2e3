"""A code location with one of everything that a control plane shows."""
