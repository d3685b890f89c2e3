"""Faults of the agent's disks and of its database, and files that user code has written."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from random import Random

from tests.chaos.bed import Bed
from tests.chaos.fault import Fault, HasStruck, Inject, at_once
from tests.chaos.location.chaos_location.tricks import TRICKS

GROUP = "disks are full, read-only or gone; files lie"


def _with(
    happening: Callable[[Bed], AbstractContextManager[None]], *, killing: bool = False
) -> Inject:
    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        with happening(bed):
            if killing:
                bed.agent.kill()
            yield at_once

    return inject


@contextlib.contextmanager
def _locked(bed: Bed) -> Iterator[None]:
    """Hold the lock for writing of each database in the agent's home."""
    with contextlib.ExitStack() as stack:
        for path in bed.home.glob("*.db"):
            database = stack.enter_context(
                contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None))
            )
            database.execute("BEGIN IMMEDIATE")
            stack.callback(database.execute, "ROLLBACK")
        yield


def _fault(
    name: str, text: str, inject: Inject, *, running: bool = True, short: bool = False
) -> Fault:
    return Fault(
        name=name,
        group=GROUP,
        text=text,
        inject=inject,
        hold_seconds=20,
        running=running,
        short=short,
    )


FAULTS = [
    _fault(
        "home full",
        "no byte is free on the agent's disk for 20 s",
        _with(lambda b: b.home_disk.full()),
    ),
    _fault(
        "home read-only",
        "the agent is killed, and its disk is read-only for 20 s when it starts again",
        _with(lambda b: b.home_disk.read_only(), killing=True),
    ),
    _fault(
        "work_dir full",
        "no byte is free where job directories are for 20 s",
        _with(lambda b: b.work_disk.full()),
        short=True,
    ),
    _fault(
        "work_dir read-only",
        "nothing can be written where job directories are for 20 s",
        _with(lambda b: b.work_disk.read_only()),
    ),
    _fault(
        "work_dir gone",
        "an empty directory is where job directories were for 20 s, as after a lost mount",
        _with(lambda b: b.work_disk.gone()),
    ),
    _fault(
        "work_dir gone at start",
        "the same, and the agent is killed meanwhile",
        _with(lambda b: b.work_disk.gone(), killing=True),
    ),
    _fault(
        "database locked",
        "another process holds the state database's lock for 20 s",
        _with(_locked),
    ),
    Fault(
        name="hostile exit.json",
        group=GROUP,
        text="runs put nonsense in their exit record's place: half of a surrogate pair, wrong "
        "types, 100 MB, a pipe, a link to /dev/zero, a directory, a lie",
        inject=_with(lambda _: contextlib.nullcontext()),
        tricks=tuple(TRICKS),
        running=False,
    ),
]
