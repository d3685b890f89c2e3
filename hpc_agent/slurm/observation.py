"""What each call of Slurm took, and how it ended: told to whoever wants to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath

from hpc_agent.slurm.commands import CommandResult, CommandRunner


class CallOutcome(StrEnum):
    """How a call ended; FAILED says nothing of whose fault it was."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"


OnCall = Callable[[str, CallOutcome, float], None]
"""Gets the name of the call, one of a few, and the seconds that it took."""


def nobody(_name: str, _outcome: CallOutcome, _seconds: float) -> None:
    """Want to know nothing."""


@dataclass(slots=True)
class ObservedCall:
    """A call under way; it counts as failed unless somebody says otherwise."""

    outcome: CallOutcome = CallOutcome.FAILED

    def ended(self, *, well: bool) -> None:
        """Note whether there was an answer, and a good one."""
        self.outcome = CallOutcome.OK if well else CallOutcome.FAILED


@contextmanager
def observed(name: str, on_call: OnCall) -> Iterator[ObservedCall]:
    """Tell of the call that the block makes, also where it raises."""
    call, began = ObservedCall(), time.monotonic()
    try:
        yield call
    finally:
        on_call(name, call.outcome, time.monotonic() - began)


class ObservedRunner:
    """A command runner that tells of each command."""

    def __init__(self, runner: CommandRunner, on_call: OnCall) -> None:
        self._runner = runner
        self._on_call = on_call

    async def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str], timeout_seconds: float
    ) -> CommandResult:
        """Run, and tell by the command's own name."""
        with observed(PurePath(argv[0]).name, self._on_call) as call:
            result = await self._runner.run(
                argv, environment=environment, timeout_seconds=timeout_seconds
            )
            call.ended(well=result.succeeded)
            if result.returncode is None:
                call.outcome = CallOutcome.TIMEOUT
            return result
