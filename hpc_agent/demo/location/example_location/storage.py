"""Where the example keeps its data: JSON files that jobs on different nodes share."""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg


def data_directory() -> Path:
    """Return the directory of the example's data, which all compute nodes must see.

    HPC_AGENT_DEMO_DATA names it; without it the home directory is used, which clusters share.
    """
    chosen = os.environ.get("HPC_AGENT_DEMO_DATA")
    return Path(chosen) if chosen else Path.home() / ".cache" / "hpc-agent-demo"


class JsonFiles(dg.ConfigurableIOManager):
    """Keep each asset (and each of its partitions) in a JSON file."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write a value; a reader sees the old file or the new one, never half of one."""
        path = self._path(context)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{context.run_id}")
        temporary.write_text(json.dumps(obj))
        temporary.replace(path)
        context.add_output_metadata({"path": dg.MetadataValue.path(path)})

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the value of an upstream asset."""
        path = self._path(context)
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise dg.Failure(
                f"{path} is missing: materialize {context.asset_key.to_user_string()} first, and "
                "check that HPC_AGENT_DEMO_DATA is on a file system that all nodes share"
            ) from None

    def _path(self, context: dg.InputContext | dg.OutputContext) -> Path:
        parts = list(context.asset_key.path) if context.has_asset_key else context.get_identifier()
        if context.has_asset_partitions:
            parts = [*parts, context.asset_partition_key]
        return data_directory().joinpath(*parts).with_suffix(".json")
