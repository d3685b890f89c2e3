"""Contestants, each in a directory of its own; what fails is told, and stops no other."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tests.bench.peers import gateway_load
from tests.bench.peers.gateway_load import Gateway
from tests.bench.peers.measures.launches import NO_OPS, TASKS
from tests.bench.peers.rows import Row, missing, of_all
from tests.bench.peers.runners.runner import Place, Runner

Taken = TypeVar("Taken", bound=Runner)
Tasks = Callable[[Place, int], float]


def of_runner(
    name: str,
    opened: Callable[[Place], AbstractContextManager[Taken]],
    measures: Sequence[Callable[[Taken, Place], list[Row]]],
    place: Place,
) -> list[Row]:
    """Open a runner, take its measurements, and close it."""
    rows: list[Row] = []
    try:
        with own_directory(place) as own, opened(own) as runner:
            for measure in measures:
                place.say(f"{name}: {measure.__name__.replace('_', ' ')}")
                try:
                    rows += measure(runner, own)
                except Exception as error:  # noqa: BLE001 - whatever it fails with is a row
                    rows.append(missing(measure.__name__, "all", name, _words(error)))
    except Exception as error:  # noqa: BLE001 - whatever it fails with is a row
        rows.append(missing("launch", "all", name, _words(error)))
    return rows


def of_tasks(name: str, tasks: Tasks, place: Place) -> list[Row]:
    """Run the no-op tasks by one tool."""
    count = place.extent.tasks
    place.say(f"{name}: {count} tasks")
    try:
        with own_directory(place) as own:
            return [of_all(TASKS, NO_OPS, name, tasks(own, count), count)]
    except Exception as error:  # noqa: BLE001 - whatever it fails with is a row
        return [missing(TASKS, NO_OPS, name, _words(error))]


def of_gateway(
    name: str, opened: Callable[[], AbstractContextManager[Gateway]], place: Place
) -> list[Row]:
    """Ask a gateway by ever more agents."""
    rows: list[Row] = []
    extent = place.extent
    try:
        with opened() as gateway:
            for agents in extent.agents:
                place.say(f"gateway on {name}: {agents} agents")
                found = gateway_load.load(gateway, agents, extent.load_seconds)
                rows += gateway_load.rows_of(name, found)
    except Exception as error:  # noqa: BLE001 - whatever it fails with is a row
        rows.append(missing(gateway_load.PART, "all", name, _words(error)))
    return rows


@contextlib.contextmanager
def own_directory(place: Place) -> Iterator[Place]:
    """Give a contestant a fresh directory with a short path: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="hpc-peer-", ignore_cleanup_errors=True) as path:
        directory = Path(path) / "d"
        directory.mkdir(mode=0o700)
        yield replace(place, directory=directory)


def _words(error: BaseException) -> str:
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        return str(error.stderr)
    return str(error).splitlines()[0] if str(error) else type(error).__name__
