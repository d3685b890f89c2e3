"""The relay: the one listener of the login node, for the agent's own jobs.

``server.Relay`` is the whole of it; docs/architecture.md has the protocol.
"""
