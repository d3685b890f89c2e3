"""The program that trains: a job of its own, which goes on where the one before has stopped."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from dagster_pipes import PipesContext, open_dagster_pipes
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from .checkpoint import Checkpoint, Epoch, load
from .digits import load_split

RESUME_ME = 85
"""The exit code that asks for another job, as `dagster_hpc.Checkpoint` has it."""


class NearlyOverError(Exception):
    """The time is nearly up."""


def main() -> None:
    """Train until all epochs are done, or the time is up."""
    signal.signal(signal.SIGTERM, warn)
    code = 0
    with open_dagster_pipes() as pipes:
        try:
            train(pipes)
        except NearlyOverError:
            pipes.log.info("the time is nearly up: another job goes on")
            code = RESUME_ME
    sys.exit(code)


def warn(number: int, frame: FrameType | None) -> None:
    """Leave the epoch that is being trained: the checkpoint before it is whole."""
    raise NearlyOverError


def train(pipes: PipesContext) -> None:
    """Train epoch after epoch, with a checkpoint after each, and report the model."""
    path = Path(os.environ["DAGSTER_HPC_CHECKPOINT_DIRECTORY"], "last.joblib")
    digits = load_split()
    checkpoint = load(path) or Checkpoint(model=untrained(pipes.extras))
    resumed_after = len(checkpoint.epochs)
    if resumed_after:
        pipes.log.info(f"going on after epoch {resumed_after}")
    while len(checkpoint.epochs) < pipes.extras["epochs"]:
        with threadpool_limits(cpus()):
            checkpoint = checkpoint.next(digits)
        checkpoint.save(path)
        epoch = checkpoint.epochs[-1]
        pipes.log.info(
            f"epoch {epoch.number}: loss {epoch.loss:.4f}, accuracy {epoch.accuracy:.4f}"
        )
    last = checkpoint.epochs[-1]
    pipes.report_asset_materialization(
        metadata={
            "loss": last.loss,
            "accuracy": last.accuracy,
            "resumed_after_epoch": resumed_after,
            "epochs": {"raw_value": table_of(checkpoint.epochs), "type": "md"},
            "model": {"raw_value": str(path), "type": "path"},
        }
    )


def cpus() -> int | None:
    """Return how many CPUs the job has: the libraries' own guess is all of the node's."""
    given = os.environ.get("SLURM_CPUS_PER_TASK")
    return int(given) if given else None


def untrained(config: Mapping[str, Any]) -> MLPClassifier:
    """Return the network with nothing learnt.

    With a generator and not a number, epochs differ in their order, and checkpoints have its state.
    """
    return MLPClassifier(
        hidden_layer_sizes=(config["hidden_units"],),
        batch_size=config["batch_size"],
        learning_rate_init=config["learning_rate"],
        random_state=np.random.RandomState(config["seed"]),
    )


def table_of(epochs: tuple[Epoch, ...]) -> str:
    """Return the learning curve."""
    rows = (f"| {each.number} | {each.loss:.4f} | {each.accuracy:.4f} |" for each in epochs)
    return "\n".join(["| epoch | loss | accuracy |", "|---|---|---|", *rows])


if __name__ == "__main__":
    main()
