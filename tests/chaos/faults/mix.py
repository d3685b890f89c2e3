"""Several faults at a time, drawn by lot from a seed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from random import Random

from tests.chaos.bed import Bed
from tests.chaos.fault import Fault, HasStruck, at_once

GROUP = "several at a time"
_AT_A_TIME = 3
_PATIENT_SECONDS = 200.0


def mix(faults: Sequence[Fault]) -> Fault:
    """Return the fault that is several of these at a time, each of another group.

    Those that excuse anything stay outside: which of them has cut a run could not be told.
    """
    pool = [fault for fault in faults if _is_plain(fault)]

    @contextlib.contextmanager
    def inject(bed: Bed, random: Random) -> Iterator[HasStruck]:
        chosen = _draw(pool, random)
        bed.say(f"    mix of {', '.join(fault.name for fault in chosen)}")
        with contextlib.ExitStack() as stack:
            for fault in chosen:
                stack.enter_context(fault.inject(bed, random))
                time.sleep(random.uniform(0, 3))
            yield at_once

    return Fault(
        name="mix",
        group=GROUP,
        text=f"{_AT_A_TIME} of the faults that excuse nothing at a time, drawn by lot",
        inject=inject,
        hold_seconds=20,
        patience_seconds=240,
    )


def _is_plain(fault: Fault) -> bool:
    return (
        fault.expected.is_once
        and not fault.tricks
        and not fault.ends_runs
        and fault.patience_seconds <= _PATIENT_SECONDS
    )


def _draw(pool: Sequence[Fault], random: Random) -> list[Fault]:
    chosen: dict[str, Fault] = {}
    while len(chosen) < _AT_A_TIME:
        fault = random.choice(pool)
        chosen.setdefault(fault.group, fault)
    return list(chosen.values())
