"""Fixtures: a control plane that is up, a cluster around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from .fake_control_plane import FakeControlPlane
from .harness import Cluster


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """Fail a test in which the relay blocks the event loop."""
    with blockbuster_ctx("hpc_agent.relay"):
        yield


@pytest.fixture
def control_plane() -> Iterator[FakeControlPlane]:
    """Run a fake control plane."""
    fake = FakeControlPlane()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
async def cluster(tmp_path: Path, control_plane: FakeControlPlane) -> AsyncIterator[Cluster]:
    """Make a work directory with the node program, and end its processes afterwards."""
    made = Cluster(tmp_path, control_plane)
    yield made
    await made.close()
