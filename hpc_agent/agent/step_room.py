"""Steps for which their code location has no room: they wait, and their runs hear why."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hpc_agent.agent.context import Context
from hpc_agent.config import AgentConfig
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.step_bounds import StepBounds
from hpc_agent.store.workers import Worker
from hpc_agent.workers import intents
from hpc_agent.workers.change import NOTHING, Change


class StepRoom:
    """Knows which steps must wait for others of their location to end."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told: Collection[str] = ()
        self.bounds = bounds_of(context.config)

    async def held_back(self, now: float) -> Collection[str]:
        """Return the intents that must wait, and let each of them say so once."""
        held = await self._context.store.run(lambda db: self.bounds.held_back(db, now))
        new = [key for key in held if key not in self._told]
        self._told = held.keys()

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            reason = (
                f"code location {worker.location} has {held[worker.key]} jobs of steps at once, "
                "which is the most that the agent's configuration lets it have"
            )
            if worker.phase is not Phase.INTENT or worker.waits_for == reason:
                return NOTHING
            return intents.hold_back(worker, reason, now=now, not_before=worker.not_before)

        await self._context.changes.apply_to_all(new, observe, source="agent")
        return held.keys()


def bounds_of(config: AgentConfig) -> StepBounds:
    """Return how many jobs of steps locations may have at once."""
    own = {name: location.max_concurrent_steps for name, location in config.locations.items()}
    return StepBounds(
        of_others=config.steps.max_concurrent,
        of_location={name: bound for name, bound in own.items() if bound is not None},
    )
