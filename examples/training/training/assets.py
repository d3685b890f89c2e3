"""The trained model, and whether it is good enough."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_hpc import Checkpoint, PipesSlurmClient, SlurmOptions

from .checkpoint import load
from .digits import load_split

GOOD_ENOUGH = 0.9


class Training(dg.Config):
    """How to train; ``seed`` decides the first weights and the order of the images."""

    epochs: int = 20
    hidden_units: int = 64
    batch_size: int = 32
    learning_rate: float = 0.001
    seed: int = 0


@dg.asset(kinds={"scikitlearn", "slurm"})
def digit_classifier(
    context: dg.AssetExecutionContext, config: Training, slurm: PipesSlurmClient
) -> Iterator[Any]:
    """A network that reads handwritten digits, with a checkpoint after each epoch."""
    yield from slurm.stream(
        context=context,
        command=[sys.executable, "-m", "training.train"],
        options=SlurmOptions(cpus_per_task=1, mem="1G", time="00:10:00"),
        extras=config.model_dump(),
        checkpoint=Checkpoint(),
    )


@dg.asset_check(asset=digit_classifier)
def reads_unseen_digits(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Nine of ten images that had no part in the training are read right."""
    event = context.instance.get_latest_materialization_event(digit_classifier.key)
    if event is None or event.asset_materialization is None:
        raise dg.Failure("there is no model yet")
    path = event.asset_materialization.metadata["model"].value
    checkpoint = load(Path(str(path)))
    if checkpoint is None:
        raise dg.Failure(f"the model is not at {path} any more")
    accuracy = float(checkpoint.model.score(*load_split().test))
    return dg.AssetCheckResult(passed=accuracy >= GOOD_ENOUGH, metadata={"accuracy": accuracy})
