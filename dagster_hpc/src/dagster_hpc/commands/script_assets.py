"""Existing batch scripts as assets."""

# Dagster reads the annotation of an asset's context as it is: no annotations from __future__ here.

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_hpc.commands.asked import Options
from dagster_hpc.commands.call import op_context
from dagster_hpc.commands.checkpoint import Checkpoint
from dagster_hpc.commands.outputs import metadata_of
from dagster_hpc.commands.pipes import PipesSlurmClient
from dagster_hpc.commands.scripts import SlurmScript


def slurm_script_asset(
    script: SlurmScript,
    *,
    key: dg.AssetKey | str | None = None,
    options: Options | None = None,
    environment: Mapping[str, str] | None = None,
    checkpoint: Checkpoint | None = None,
    client: PipesSlurmClient | None = None,
    **asset: Any,
) -> dg.AssetsDefinition:
    """Return the asset that a script makes, named after its file unless ``key`` says otherwise.

    ``options`` win over its ``#SBATCH`` lines. ``asset`` goes to ``dagster.asset`` as it is: deps,
    partitions_def, group_name, retry_policy, … The script learns of its partition by
    ``DAGSTER_PARTITION_KEY``. It fails when an output is missing, empty, or older than the job.
    """

    def make(context: dg.AssetExecutionContext) -> Iterator[Any]:
        asked: dict[str, Any] = {"options": options, "environment": environment}
        if checkpoint is not None:
            asked["checkpoint"] = checkpoint
        done = (client or PipesSlurmClient()).run(
            context=context,
            script=script,
            **{name: value for name, value in asked.items() if value is not None},
        )
        metadata = metadata_of(_outputs(script, context), since=done.began)
        for result in done.get_results():
            if isinstance(result, dg.MaterializeResult):
                yield result._replace(metadata={**metadata, **(result.metadata or {})})
            else:
                yield result

    names: dict[str, Any] = {"key": key} if key is not None else {"name": _name(script.path)}
    description = asset.pop("description", f"Made by `{script.path}`.")
    made: dg.AssetsDefinition = dg.asset(
        **names, description=description, kinds={"slurm"}, **asset
    )(make)
    return made


def _outputs(script: SlurmScript, context: dg.AssetExecutionContext) -> dict[str, Path]:
    """Return the paths of a script's outputs. Raises ScriptError for one that leads elsewhere."""
    op = op_context(context)
    values = {"run_id": op.run_id}
    if op.has_partition_key:
        values["partition_key"] = op.partition_key
    return script.output_paths(values)


def _name(path: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in Path(path).stem)
