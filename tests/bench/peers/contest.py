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

from tests.bench.peers import gateway_load, restarts
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
    with (
        _telling(rows, "launch", "all", name),
        own_directory(place) as own,
        opened(own) as runner,
    ):
        for measure in measures:
            what = measure.__name__.replace("_", " ")
            place.say(f"{name}: {what}")
            with _telling(rows, what, "all", name):
                rows += measure(runner, own)
    return rows


def of_tasks(name: str, tasks: Tasks, place: Place) -> list[Row]:
    """Run the no-op tasks by one tool."""
    rows: list[Row] = []
    count = place.extent.tasks
    place.say(f"{name}: {count} tasks")
    with _telling(rows, TASKS, NO_OPS, name), own_directory(place) as own:
        rows.append(of_all(TASKS, NO_OPS, name, tasks(own, count), count))
    return rows


def of_gateway(
    name: str, opened: Callable[[], AbstractContextManager[Gateway]], place: Place
) -> list[Row]:
    """Ask a gateway by ever more agents."""
    rows: list[Row] = []
    extent = place.extent
    with _telling(rows, gateway_load.PART, "all", name), opened() as gateway:
        for agents in extent.agents:
            place.say(f"gateway on {name}: {agents} agents")
            with _telling(rows, gateway_load.PART, f"{agents} agents", name):
                found = gateway_load.load(gateway, agents, extent.load_seconds)
                rows += gateway_load.rows_of(name, found)
    return rows


def of_restarts(name: str, place: Place) -> list[Row]:
    """Start our agent anew with ever more jobs."""
    rows: list[Row] = []
    with _telling(rows, restarts.PART, "all", name), own_directory(place) as own:
        rows += restarts.restarts(name, own)
    return rows


@contextlib.contextmanager
def _telling(rows: list[Row], part: str, measure: str, name: str) -> Iterator[None]:
    """Whatever a contestant fails with is a row, and not the end of the session."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        rows.append(missing(part, measure, name, _words(error)))


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
