"""Dagster's own storage suites, on its plain storages and through the stock client's."""
