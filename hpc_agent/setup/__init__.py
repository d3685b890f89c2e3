"""``hpc-agent init``: what a login node has, what is asked, and the agent.yaml it comes to."""
