"""``hpc-agent doctor``: what a site has, and what should be changed there or in agent.yaml."""
