"""The life of what the agent wants running: evidence, phases, last words."""
