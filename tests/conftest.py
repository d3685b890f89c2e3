"""Fixtures for all tests."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest

from tests.cluster import (
    SlurmCluster,
    find_cluster,
    own_cluster,
)

# A shell that starts us in the background has it ignored, which every process would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
