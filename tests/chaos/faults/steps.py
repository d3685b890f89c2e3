"""The same mishaps, to runs whose steps are jobs of their own: run worker and step are both hit."""

from __future__ import annotations

from tests.chaos.fault import Fault
from tests.chaos.faults.elsewhere import played_again

FAULTS: tuple[Fault, ...] = played_again(
    "in steps",
    "steps are jobs of their own",
    short=frozenset({"kill at random"}),
    in_steps=True,
)
