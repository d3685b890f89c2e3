"""The self-hosted control plane: stock webserver and daemon, and a gateway for the agent API."""
