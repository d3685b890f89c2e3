"""What the suites use of Dagster's package ``dagster-test``, which no index has."""
