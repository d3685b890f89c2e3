"""Handwritten digits, 8 by 8 pixels: the 1,797 test images of the UCI data set, in scikit-learn."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Digits(NamedTuple):
    """Images, one a row with brightness from 0 to 1, and which digit each shows."""

    images: NDArray[np.float64]
    labels: NDArray[np.int64]


class Split(NamedTuple):
    """What to learn from, what to watch the learning by, and what is kept for the end."""

    train: Digits
    validation: Digits
    test: Digits


def load_split() -> Split:
    """Return the digits: three fifths, one, and one; always the same."""
    images, labels = load_digits(return_X_y=True)
    train, rest = split(Digits(images / 16, labels), share=0.4)
    return Split(train, *split(rest, share=0.5))


def split(digits: Digits, *, share: float) -> tuple[Digits, Digits]:
    """Return the digits without a share of them, and the share, with each digit alike in both."""
    parts: list[Any] = train_test_split(
        digits.images, digits.labels, test_size=share, stratify=digits.labels, random_state=0
    )
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])
