"""``python -m hpc_agent``."""

from hpc_agent.cli import main

main()
