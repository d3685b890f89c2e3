"""Jobs that runs ask for: their steps, and commands of user code."""
