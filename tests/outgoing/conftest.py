"""Each test here runs on the agent's outbox and on the relay's spool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from tests.outgoing.sides import OutboxSide, Side, SpoolSide
from tests.relay.fake_control_plane import FakeControlPlane


@pytest.fixture
def control_plane() -> Iterator[FakeControlPlane]:
    fake = FakeControlPlane()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture(params=[OutboxSide, SpoolSide], ids=["outbox", "spool"])
async def side(
    request: pytest.FixtureRequest, tmp_path: Path, control_plane: FakeControlPlane
) -> AsyncIterator[Side]:
    made: Side = request.param(tmp_path, control_plane)
    await made.open()
    with blockbuster_ctx("hpc_agent.outgoing"):
        yield made
    await made.close()
