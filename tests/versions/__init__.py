"""User code on other releases of Dagster than the control plane's, each in its own environment."""
