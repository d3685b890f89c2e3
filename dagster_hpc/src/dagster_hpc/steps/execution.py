"""Dagster's state machine of a run, made again from what an earlier run worker has seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dagster._core.events import DagsterEvent
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.storage.tags import GLOBAL_CONCURRENCY_TAG

from dagster_hpc.steps.events import is_end, launched


class Execution(ActiveExecution):
    """Follows events without limits: what has run had its turn, whoever has the slots now."""

    def rebuild_from_events(
        self, dagster_events: Sequence[DagsterEvent]
    ) -> Sequence[ExecutionStep]:
        """Return the steps that have been launched and go on; the others have to wait again."""
        most, self._max_concurrent = self._max_concurrent, None
        limits, self._tag_concurrency_limits = self._tag_concurrency_limits, []
        slots, self._instance_concurrency_context = self._instance_concurrency_context, None
        super().rebuild_from_events(dagster_events)
        self._max_concurrent, self._tag_concurrency_limits = most, limits
        self._instance_concurrency_context = slots

        going = [step for step in launched(dagster_events) if step in self._in_flight][:most]
        back = self._in_flight.difference(going)
        self._in_flight -= back
        self._executable += sorted(back)
        self._free({event.step_key for event in dagster_events if is_end(event)}.difference(going))
        self._claim(going)
        return [self.get_step_by_key(step) for step in going]

    def _free(self, steps: Iterable[str | None]) -> None:
        """Free the slots of steps that have ended, since nobody may have done it."""
        slots = self._instance_concurrency_context
        for step in steps:
            pool = self._pool(step) if step is not None else None
            if slots is not None and pool is not None and slots.get_pool_info(pool) is not None:
                slots._claims.add(step)
                slots.free_step(step)

    def _claim(self, steps: Iterable[str]) -> None:
        """Keep the slots of steps that go on, which do so with or without one."""
        slots = self._instance_concurrency_context
        for step in steps:
            pool = self._pool(step)
            if slots is not None and pool is not None and not slots.claim(pool, step):
                slots._pending_claims.discard(step)
                slots._claims.add(step)

    def _pool(self, step: str) -> str | None:
        found = self.get_step_by_key(step)
        return found.pool or found.tags.get(GLOBAL_CONCURRENCY_TAG)
