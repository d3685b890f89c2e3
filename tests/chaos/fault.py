"""What a fault is: how it is brought about, for how long, and what it excuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random

from tests.chaos.bed import Bed
from tests.chaos.ledger import Expected

ONCE = Expected()

HasStruck = Callable[[], bool]
"""Whether a fault that waits for its moment has struck. What strikes at once says True."""

Inject = Callable[[Bed, Random], AbstractContextManager[HasStruck]]
"""Brings a fault about when it is entered, and undoes it when it is left, whatever happens."""


def at_once() -> bool:
    """Say that a fault has struck as soon as it was injected."""
    return True


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of mishap.

    ``hold_seconds`` is how long it lasts once it has struck. ``running`` and ``arriving`` say which
    runs meet it: those that are executed when it is injected, and those that are launched under it.
    ``ends_runs``: those that are executed take long, and are asked to end while it lasts.
    ``outlasted``: those that are executed take longer than the fault.
    ``in_steps``: the work is a step with a job of its own, which the run asks for.
    ``spoils``: Slurm's ids begin anew, and its nodes refuse those that they have had, so that
    another bed is made afterwards.
    """

    name: str
    group: str
    text: str
    inject: Inject
    hold_seconds: float = 0.0
    running: bool = True
    arriving: bool = True
    expected: Expected = ONCE
    tags: Mapping[str, str] = field(default_factory=dict)
    tricks: tuple[str, ...] = ()
    ends_runs: bool = False
    outlasted: bool = False
    spoils: bool = False
    in_steps: bool = False
    patience_seconds: float = 200.0
    short: bool = False
    stock: bool = False
