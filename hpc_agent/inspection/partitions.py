"""The partitions that the agent's jobs use, as rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hpc_agent.config import AgentConfig
from hpc_agent.store import partition_use
from hpc_agent.store.database import read_only


def read_partitions(config: AgentConfig) -> list[dict[str, Any]]:
    """Return what jobs have and wait for, by partition. Raises StoreError when no agent has run."""
    return [asdict(each) for each in partition_use.in_use(read_only(config.home))]
