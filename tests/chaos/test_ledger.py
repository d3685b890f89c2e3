"""The rig itself can fail: each kind of wrong is found in the ledgers."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.chaos.ledger import (
    CANCELED,
    FAILURE,
    SUCCESS,
    Executed,
    Expected,
    Finding,
    Shown,
    compare,
    harmed,
    left_over,
    read_executed,
)
from tests.chaos.location.chaos_location import known

RUN = "0f9e8d7c-0000-4000-8000-000000000001"
ONCE = Executed(starts=[10.0], ends=[12.0], jobs=["7"])
NEVER = Executed()
CUT_OFF = Executed(starts=[10.0], jobs=["7"])
MESSAGES = [("LogMessageEvent", known.log_message(RUN, n)) for n in range(known.LOG_LINES)]
EVENTS = [
    ("RunEnqueuedEvent", ""),
    ("RunStartEvent", "Started"),
    ("EngineEvent", "in process"),
    ("ExecutionStepStartEvent", "Started"),
    *MESSAGES,
    ("ExecutionStepSuccessEvent", "Finished"),
    ("RunSuccessEvent", "Finished"),
]


def shown(
    status: str = SUCCESS,
    *,
    events: Sequence[tuple[str, str]] = EVENTS,
    outputs: Sequence[str] = (known.stdout(RUN),),
    ended_at: float = 13.0,
) -> Shown:
    """Return what Dagster shows of a run to which nothing has happened, but for what is given."""
    return Shown(status=status, events=events, outputs=outputs, ended_at=ended_at)


def findings(
    executed: Executed,
    seen: Shown,
    *,
    expected: Expected = Expected(),  # noqa: B008 - it is frozen
) -> list[Finding]:
    """Return what is found."""
    return [problem.finding for problem in compare(RUN, expected, executed, seen)]


def test_nothing_is_wrong_with_a_run_that_was_executed_once() -> None:
    """Work done, SUCCESS, all events, all bytes."""
    assert findings(ONCE, shown()) == []


@pytest.mark.parametrize("executed", [NEVER, CUT_OFF])
def test_run_that_failed_without_its_work_is_lost(executed: Executed) -> None:
    """Nothing excuses that it was not executed, or not to its end."""
    assert findings(executed, shown(FAILURE)) == [Finding.LOST]


@pytest.mark.parametrize("executed", [NEVER, CUT_OFF])
def test_run_that_a_fault_has_cut_is_not_lost(executed: Executed) -> None:
    """A fault that ends work excuses FAILURE."""
    assert findings(executed, shown(FAILURE), expected=Expected(may_be_cut=True)) == []


def test_run_executed_twice_is_doubled() -> None:
    """Also when it looks well otherwise."""
    twice = Executed(starts=[10.0, 11.0], ends=[12.0, 13.0], jobs=["7", "8"])

    assert findings(twice, shown()) == [Finding.DOUBLED]


def test_run_begun_again_without_a_policy_is_doubled() -> None:
    """The first execution need not have come to its end."""
    again = Executed(starts=[10.0, 11.0], ends=[13.0], jobs=["7", "8"])

    assert findings(again, shown()) == [Finding.DOUBLED]


def test_run_begun_again_by_a_policy_is_not_doubled() -> None:
    """Its events begin anew with the last execution."""
    again = Executed(starts=[10.0, 11.0], ends=[13.0], jobs=["7", "8"])
    events = [*EVENTS[:6], *EVENTS[3:]]

    assert findings(again, shown(events=events), expected=Expected(executions=2)) == []


def test_run_finished_twice_is_doubled_whatever_the_policy() -> None:
    """A retry is for work that was not finished."""
    twice = Executed(starts=[10.0, 11.0], ends=[12.0, 13.0], jobs=["7", "8"])

    assert Finding.DOUBLED in findings(twice, shown(), expected=Expected(executions=4))


@pytest.mark.parametrize("status", [FAILURE, CANCELED])
def test_run_that_failed_although_its_work_was_done_has_a_false_end(status: str) -> None:
    """No fault excuses that."""
    assert findings(ONCE, shown(status)) == [Finding.FALSE_END]


def test_run_that_was_cut_between_its_work_and_its_end_has_no_false_end() -> None:
    """But one whose work went on after its end has, and one whose work was done long before."""
    cut = Expected(may_be_cut=True)

    assert findings(ONCE, shown(FAILURE, ended_at=13.0), expected=cut) == []
    assert findings(ONCE, shown(FAILURE, ended_at=11.0), expected=cut) == [Finding.FALSE_END]
    assert findings(ONCE, shown(FAILURE, ended_at=60.0), expected=cut) == [Finding.FALSE_END]


@pytest.mark.parametrize("executed", [NEVER, CUT_OFF])
def test_run_that_succeeded_without_its_work_has_a_false_end(executed: Executed) -> None:
    """Neither a run that never began nor one that was cut off is a success."""
    assert findings(executed, shown()) == [Finding.FALSE_END]


def test_run_whose_work_begins_after_its_end_has_a_false_end() -> None:
    """It was marked failed, and was executed nevertheless."""
    late = Executed(starts=[20.0], jobs=["7"])

    found = findings(late, shown(FAILURE, ended_at=13.0), expected=Expected(may_be_cut=True))

    assert found == [Finding.FALSE_END]


@pytest.mark.parametrize("status", ["QUEUED", "STARTING", "STARTED", "CANCELING", ""])
def test_run_without_an_end_is_stuck(status: str) -> None:
    """Whether its work was done or not."""
    assert findings(ONCE, shown(status)) == [Finding.STUCK]


def test_run_that_was_asked_to_end_must_be_canceled() -> None:
    """FAILURE and SUCCESS are false, no end is stuck."""
    ended = Expected(is_ended=True)

    assert findings(CUT_OFF, shown(CANCELED), expected=ended) == []
    assert findings(CUT_OFF, shown(FAILURE), expected=ended) == [Finding.FALSE_END]
    assert findings(CUT_OFF, shown("CANCELING"), expected=ended) == [Finding.STUCK]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(EVENTS[:5] + EVENTS[6:], id="one is missing"),
        pytest.param([*EVENTS[:6], *EVENTS[5:]], id="one is repeated"),
        pytest.param([*EVENTS[:5], EVENTS[6], EVENTS[5], *EVENTS[7:]], id="two are exchanged"),
        pytest.param(EVENTS[:-1], id="the last is missing"),
        pytest.param([], id="all are missing"),
    ],
)
def test_events_that_are_not_complete_and_in_order_are_found(
    events: list[tuple[str, str]],
) -> None:
    """Also by a policy that lets a run be executed again."""
    assert findings(ONCE, shown(events=events)) == [Finding.EVENTS]
    assert findings(ONCE, shown(events=events), expected=Expected(executions=4)) == [Finding.EVENTS]


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param([], id="none"),
        pytest.param([""], id="wiped"),
        pytest.param([known.stdout(RUN)[:-1]], id="cut"),
        pytest.param([known.stdout(RUN) * 2], id="repeated"),
        pytest.param([known.stdout(RUN)] * 2, id="twice"),
        pytest.param([known.stdout(RUN.replace("1", "2"))], id="of another run"),
    ],
)
def test_output_that_differs_by_a_byte_is_found(outputs: list[str]) -> None:
    """Once whole is what it must be."""
    assert findings(ONCE, shown(outputs=outputs)) == [Finding.OUTPUT]


def test_each_execution_may_have_an_output() -> None:
    """That of one which was cut off is not whole."""
    again = Executed(starts=[10.0, 11.0], ends=[13.0], jobs=["7", "8"])
    outputs = [known.first_half(RUN), known.stdout(RUN)]

    assert findings(again, shown(outputs=outputs), expected=Expected(executions=2)) == []


def test_jobs_that_are_left_and_strangers_that_were_cancelled_are_found() -> None:
    """They are about no run."""
    (left,), (stranger,) = left_over(["17 RUNNING"]), harmed(["18"])

    assert (left.finding, left.run_id) == (Finding.LEFT_OVER, "")
    assert (stranger.finding, stranger.run_id) == (Finding.STRANGER, "")


def test_lines_that_ops_have_written_are_read_by_run() -> None:
    """Lines of several runs are mixed in the file."""
    lines = [
        json.dumps({"run": run, "what": what, "at": at, "pid": 1, "job": job, "node": "c2"})
        for run, what, at, job in [
            ("a", "start", 1.0, "7"),
            ("b", "start", 2.0, "8"),
            ("a", "end", 3.0, "7"),
            ("b", "start", 4.0, "9"),
        ]
    ]

    assert read_executed(lines) == {
        "a": Executed(starts=[1.0], ends=[3.0], jobs=["7"]),
        "b": Executed(starts=[2.0, 4.0], ends=[], jobs=["8", "9"]),
    }
