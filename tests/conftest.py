"""Fixtures for all tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import (
    NoClusterError,
    SlurmCluster,
    cluster_tool,
    find_cluster,
    start_cluster,
)


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
    # Not below pytest's tmp_path: a unix socket's path may have 108 characters.
    directory = Path(tempfile.mkdtemp(prefix="hpc-slurm-"))
    try:
        yield start_cluster(directory, accounting=accounting, restd=restd)
    except NoClusterError as reason:
        pytest.skip(str(reason))
    finally:
        if (directory / "cluster.json").exists():
            cluster_tool("down", directory=directory)
        shutil.rmtree(directory, ignore_errors=True)
