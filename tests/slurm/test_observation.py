"""Each call of Slurm is told of, by its name and how it ended."""

from __future__ import annotations

import pytest

from hpc_agent.slurm.commands import ProcessRunner
from hpc_agent.slurm.observation import CallOutcome, ObservedRunner, observed


@pytest.mark.parametrize(
    ("argv", "name", "outcome"),
    [
        (["true"], "true", CallOutcome.OK),
        (["/bin/false", "--me"], "false", CallOutcome.FAILED),
        (["sleep", "600"], "sleep", CallOutcome.TIMEOUT),
        (["no-such-command"], "no-such-command", CallOutcome.FAILED),
    ],
)
async def test_command_is_told_of(argv: list[str], name: str, outcome: CallOutcome) -> None:
    """Its name without a path, never its arguments."""
    told: list[tuple[str, CallOutcome]] = []
    runner = ObservedRunner(ProcessRunner(), lambda *call: told.append(call[:2]))

    await runner.run(argv, environment={}, timeout_seconds=1.0)

    assert told == [(name, outcome)]


def test_call_that_raises_has_failed() -> None:
    """Nobody forgets to say so."""
    told: list[CallOutcome] = []
    with (
        pytest.raises(ZeroDivisionError),
        observed("x", lambda *call: told.append(call[1])) as call,
    ):
        call.outcome = CallOutcome.FAILED
        raise ZeroDivisionError
    assert told == [CallOutcome.FAILED]
