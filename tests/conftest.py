"""Fixtures for all tests."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import (
    SlurmCluster,
    find_cluster,
    own_cluster,
)

# A shell that starts us in the background has it ignored, which every process would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


_LIMIT_SECONDS = 120.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that may take longest: none is left for one process at the end alone.

    For this the option --no-loadscope-reorder keeps pytest-xdist from an order of its own.
    """
    if not hasattr(config, "workerinput"):
        return
    limits: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        limit = float(mark.args[0]) if mark is not None and mark.args else _LIMIT_SECONDS
        limits[item.path] = max(limit, limits.get(item.path, 0.0))
    items.sort(key=lambda item: (-limits[item.path], item.path))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Set aside what all tests are made of: to search it takes half a second, after each file."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Find what a file's tests have left open while it is still known whose it is."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A real Slurm: the one SLURM_CONF names, else one of two nodes that is started for the run."""
    yield from _cluster(accounting=False)


@pytest.fixture(scope="session")
def slurm_cluster_accounting() -> Iterator[SlurmCluster]:
    """A real Slurm with slurmdbd, so that sacct answers."""
    yield from _cluster(accounting=True)


@pytest.fixture(scope="session")
def slurm_cluster_rest() -> Iterator[SlurmCluster]:
    """A real Slurm with slurmrestd and slurmdbd, started for the run."""
    yield from _cluster(accounting=True, restd=True)


def _cluster(*, accounting: bool, restd: bool = False) -> Iterator[SlurmCluster]:
    existing = None if restd else find_cluster(accounting=accounting)
    if existing is not None:
        yield existing
        return
    with own_cluster(accounting=accounting, restd=restd) as started:
        yield started
