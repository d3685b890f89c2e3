"""The log of a program of ours: what its lines carry, how they are written, and where they go."""
