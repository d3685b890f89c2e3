"""What is kept of streams that wait is bounded, and so is what the log says of them."""

from __future__ import annotations

import logging

import pytest

from hpc_agent.outgoing.holds import Holds
from hpc_agent.outgoing.queue import Waiting
from hpc_agent.outgoing.verdict import later
from tests.outgoing.sides import Side, stream_of
from tests.relay.fake_control_plane import FakeControlPlane, Reply


def test_the_table_of_streams_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that failed last are kept."""
    monkeypatch.setattr("hpc_agent.outgoing.holds._MOST_HELD", 10)
    holds = Holds(lambda: 100.0)
    for number in range(100):
        waiting = Waiting(id=number, key=str(number), stream=str(number), size=0)
        holds.hold(waiting, later("away"), patience=1.0)
    assert len(holds) == 10
    assert not holds.may_send("99")


def test_streams_that_are_gone_let_nobody_spin() -> None:
    """A pause that was over at the last look asks for no other one."""
    now = [100.0]
    holds = Holds(lambda: now[0])
    holds.hold(Waiting(id=1, key="k", stream="a", size=0), later("away"), patience=1.0)
    assert holds.next_due(100.0)
    now[0] = 200.0
    assert holds.next_due(200.0) is None


async def test_one_reason_is_said_once(
    side: Side, control_plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when other messages go between two attempts."""
    caplog.set_level(logging.INFO, "hpc_agent.outgoing")
    control_plane.script = lambda received: (
        Reply(status=403, content=b"not you") if stream_of(received) == "bad" else None
    )
    await side.put("bad", 0)
    for number in range(10):
        await side.put("good", number)
        await side.drain.until_idle()
        side.clock.ahead += 31.0
    assert [record.message for record in caplog.records].count(
        f"{side.drain.name}: what goes out waits: HTTP 403: not you"
    ) == 1
    assert len(caplog.records) <= 2
