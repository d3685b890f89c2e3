"""The trained model, and whether it is good enough."""

import os
from pathlib import Path

import dagster as dg
import numpy as np
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from .checkpoint import Checkpoint, Epoch, load
from .digits import load_split

GOOD_ENOUGH = 0.9


class Training(dg.Config):
    """How to train; ``seed`` decides the first weights and the order of the images."""

    epochs: int = 20
    hidden_units: int = 64
    batch_size: int = 32
    learning_rate: float = 0.001
    seed: int = 0


@dg.asset(
    kinds={"scikitlearn", "slurm"},
    op_tags={
        "dagster-hpc/cpus-per-task": "1",
        "dagster-hpc/mem": "1G",
        "dagster-hpc/time": "00:10:00",
    },
)
def digit_classifier(context: dg.AssetExecutionContext, config: Training) -> MLPClassifier:
    """A network that reads handwritten digits, with a checkpoint after each epoch."""
    path = checkpoint_path(context.run)
    digits = load_split()
    checkpoint = load(path) or Checkpoint(model=untrained(config))
    resumed_after = len(checkpoint.epochs)
    if resumed_after:
        context.log.info("going on after epoch %d", resumed_after)
    while len(checkpoint.epochs) < config.epochs:
        with threadpool_limits(cpus()):
            checkpoint = checkpoint.next(digits)
        checkpoint.save(path)
        context.log.info(
            "epoch {0.number}: loss {0.loss:.4f}, accuracy {0.accuracy:.4f}".format(
                checkpoint.epochs[-1]
            )
        )
    last = checkpoint.epochs[-1]
    context.add_output_metadata(
        {
            "loss": last.loss,
            "accuracy": last.accuracy,
            "resumed_after_epoch": resumed_after,
            "epochs": table_of(checkpoint.epochs),
        }
    )
    return checkpoint.model


@dg.asset_check(asset=digit_classifier)
def reads_unseen_digits(digit_classifier: MLPClassifier) -> dg.AssetCheckResult:
    """Nine of ten images that had no part in the training are read right."""
    accuracy = float(digit_classifier.score(*load_split().test))
    return dg.AssetCheckResult(passed=accuracy >= GOOD_ENOUGH, metadata={"accuracy": accuracy})


def checkpoint_path(run: dg.DagsterRun) -> Path:
    """Return the run's file: the same for all its attempts, and for re-executions of it."""
    directory = Path("checkpoints", run.root_run_id or run.run_id)
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "last.joblib"


def cpus() -> int | None:
    """Return how many CPUs the job has: the libraries' own guess is all of the node's."""
    given = os.environ.get("SLURM_CPUS_PER_TASK")
    return int(given) if given else None


def untrained(config: Training) -> MLPClassifier:
    """Return the network with nothing learnt.

    With a generator and not a number, epochs differ in their order, and checkpoints have its state.
    """
    return MLPClassifier(
        hidden_layer_sizes=(config.hidden_units,),
        batch_size=config.batch_size,
        learning_rate_init=config.learning_rate,
        random_state=np.random.RandomState(config.seed),
    )


def table_of(epochs: tuple[Epoch, ...]) -> dg.TableMetadataValue:
    """Return the learning curve."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"epoch": each.number, "loss": each.loss, "accuracy": each.accuracy})
            for each in epochs
        ]
    )
