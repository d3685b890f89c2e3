"""Proof that the gateway speaks the agent API as the stock ``dagster-cloud`` package expects it.

The cases in here are run by ``hpc-agent control-plane conformance`` and, one test each, by
``tests/control_plane``. They drive the installed client unchanged over TLS, and compare with what
a plain Dagster instance gives.
"""
