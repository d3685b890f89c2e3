"""A control plane whose runs go to the agent at once, without the daemon and its queue."""

from __future__ import annotations

from pathlib import Path

import yaml

from hpc_agent.control_plane.home import DAGSTER_YAML

STOCK = """
telemetry: {enabled: false}
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
"""
"""Of Dagster as it comes."""


def write_dagster_yaml(home: Path) -> None:
    """Write the file that a fresh home gets, with another coordinator."""
    ours = {**yaml.safe_load(DAGSTER_YAML), **yaml.safe_load(STOCK)}
    (home / "dagster.yaml").write_text(yaml.safe_dump(ours))
