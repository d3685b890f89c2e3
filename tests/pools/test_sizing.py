"""How many allocations there should be: a table of situations."""

from __future__ import annotations

import pytest

from hpc_agent.config.pools import Pool
from hpc_agent.pools.sizing import Allocation, Decision, Standing, decide
from hpc_agent.store.phases import Phase


def runs(key: str = "a", **changes: object) -> Allocation:
    values: dict[str, object] = {"phase": Phase.RUNNING, "slots": 4, "busy": 0}
    return Allocation(key=key, **(values | changes))  # type: ignore[arg-type]


def queued(key: str = "q", **changes: object) -> Allocation:
    return runs(key, phase=Phase.QUEUED, **changes)


POOL = Pool(max=3, idle_seconds=100)


@pytest.mark.parametrize(
    ("pool", "standing", "start", "leave", "withdraw"),
    [
        pytest.param(POOL, Standing(backlog=0, allocations=[]), 0, [], [], id="nothing waits"),
        pytest.param(
            POOL, Standing(backlog=1, allocations=[], slots_expected=4), 1, [], [], id="first"
        ),
        pytest.param(
            POOL, Standing(backlog=9, allocations=[], slots_expected=4), 3, [], [], id="many"
        ),
        pytest.param(
            POOL, Standing(backlog=99, allocations=[], slots_expected=4), 3, [], [], id="max"
        ),
        pytest.param(
            POOL, Standing(backlog=4, allocations=[queued()]), 0, [], [], id="one comes already"
        ),
        pytest.param(
            POOL,
            Standing(backlog=1, allocations=[runs(busy=4)]),
            1,
            [],
            [],
            id="the one there is full",
        ),
        pytest.param(
            POOL, Standing(backlog=0, allocations=[runs(idle=101.0)]), 0, ["a"], [], id="idle"
        ),
        pytest.param(
            POOL.model_copy(update={"min": 1}),
            Standing(backlog=0, allocations=[runs(idle=101.0)]),
            0,
            [],
            [],
            id="idle, but the last of min",
        ),
        pytest.param(
            POOL.model_copy(update={"min": 2}),
            Standing(backlog=0, allocations=[runs()]),
            1,
            [],
            [],
            id="min",
        ),
        pytest.param(
            POOL,
            Standing(backlog=0, allocations=[queued(queued=60.0)]),
            0,
            [],
            ["q"],
            id="nothing waits any more for what is in the queue",
        ),
        pytest.param(
            POOL,
            Standing(backlog=1, allocations=[runs(left=200.0, busy=1)], handover_seconds=300),
            1,
            [],
            [],
            id="successor before the time limit",
        ),
        pytest.param(
            POOL,
            Standing(
                backlog=0,
                allocations=[runs("old", left=200.0, busy=1), runs("new")],
                handover_seconds=300,
            ),
            0,
            ["old"],
            [],
            id="its successor runs",
        ),
        pytest.param(
            POOL,
            Standing(
                backlog=99,
                allocations=[runs(str(number), left=1.0, busy=4) for number in range(5)],
                handover_seconds=300,
            ),
            1,
            [],
            [],
            id="no more than a successor for each",
        ),
        pytest.param(
            POOL,
            Standing(backlog=5, too_late=5, allocations=[runs(left=3000.0)], handover_seconds=300),
            2,
            [],
            [],
            id="the one there has not the time",
        ),
        pytest.param(
            POOL,
            Standing(
                backlog=5,
                too_late=5,
                allocations=[runs(left=3000.0, idle=101.0)],
                handover_seconds=300,
            ),
            2,
            ["a"],
            [],
            id="it has not the time, and is idle",
        ),
        pytest.param(
            POOL.model_copy(update={"max": 1}),
            Standing(backlog=1, too_late=1, allocations=[runs(left=3000.0)], handover_seconds=300),
            1,
            ["a"],
            [],
            id="the only one has not the time",
        ),
        pytest.param(
            POOL.model_copy(update={"max": 1}),
            Standing(
                backlog=1,
                too_late=1,
                allocations=[runs(left=3000.0, busy=1)],
                handover_seconds=300,
            ),
            0,
            [],
            [],
            id="the only one has not the time, and is busy",
        ),
        pytest.param(
            POOL,
            Standing(backlog=4, too_late=1, allocations=[runs(left=3000.0)], handover_seconds=300),
            1,
            [],
            [],
            id="it has the time for some",
        ),
        pytest.param(
            POOL,
            Standing(backlog=5, allocations=[queued()], stopped="why"),
            0,
            [],
            ["q"],
            id="stopped",
        ),
    ],
)
def test_decisions(
    pool: Pool, standing: Standing, start: int, leave: list[str], withdraw: list[str]
) -> None:
    """Each with its words."""
    decision = decide(pool, standing)
    assert (decision.start, list(decision.leave), list(decision.withdraw)) == (
        start,
        leave,
        withdraw,
    )
    assert bool(decision.words) == bool(start or leave or (withdraw and not standing.stopped))


def test_it_stops_after_some_failed_starts() -> None:
    """And asks Slurm no further."""
    standing = Standing(backlog=5, allocations=[], failed_starts=3, last_failure="no such account")
    decision = decide(POOL, standing)
    assert decision == Decision(
        stop="3 allocations in a row have failed: no such account",
        words=["stopped: 3 allocations in a row have failed: no such account"],
    )
