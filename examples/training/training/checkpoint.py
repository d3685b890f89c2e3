"""The state of a training after an epoch, and the file that it is kept in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import joblib
from sklearn.neural_network import MLPClassifier

from .digits import Split


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training images: the loss there, and the accuracy on the validation's."""

    number: int
    loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The model, with its optimizer's and its random generator's state, and how it came about."""

    model: MLPClassifier
    epochs: tuple[Epoch, ...] = ()

    def next(self, digits: Split) -> Checkpoint:
        """Train for one more epoch. The model is changed in place: this checkpoint is used up."""
        self.model.partial_fit(*digits.train, classes=range(10))
        epoch = Epoch(
            number=len(self.epochs) + 1,
            loss=float(self.model.loss_),
            accuracy=float(self.model.score(*digits.validation)),
        )
        return Checkpoint(model=self.model, epochs=(*self.epochs, epoch))

    def save(self, path: Path) -> None:
        """Replace the file: whenever the job ends, there is a whole one."""
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            joblib.dump(self, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def load(path: Path) -> Checkpoint | None:
    """Return the last checkpoint, if there is one."""
    return joblib.load(path) if path.exists() else None
