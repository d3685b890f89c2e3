"""Programs of the peers, executed by a Python that has them and nothing of ours."""
