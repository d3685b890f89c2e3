"""How long what wants a slot of a pool has waited for one."""

from __future__ import annotations

from collections.abc import Iterable

from hpc_agent.pools.allocation import Offer
from hpc_agent.pools.standing import Scene
from hpc_agent.store.workers import Worker

# Runs that hold all slots, and wait for their steps, would wait for ever.
_STEP_PATIENCE_SECONDS = 120.0


class Patience:
    """Counts for each from when this agent first saw that it could have a slot.

    So no time counts in which its location was paused or no agent was there to give it one, and all
    counts in which it was given to slots where it did not begin.
    """

    def __init__(self) -> None:
        self._since: dict[str, dict[str, float]] = {}

    def look(self, pool: str, seen: Iterable[Worker], now: float) -> None:
        """Take note of all that want a slot of a pool; whoever is not among them begins anew."""
        since = self._since.get(pool, {})
        self._since[pool] = {each.key: since.get(each.key, now) for each in seen}

    def end_of(self, offer: Offer, scene: Scene, worker: Worker, now: float) -> str:
        """Say why it is to get a job of its own, "" as long as it is to wait."""
        if worker.key in scene.unfit:
            return scene.unfit[worker.key]
        if scene.standing.stopped is not None:
            return f"pool {offer.name} is stopped: {scene.standing.stopped}"
        patience = offer.pool.fallback_seconds
        if patience is None and worker.step is not None:
            patience = _STEP_PATIENCE_SECONDS
        waited = now - self._since.get(offer.name, {}).get(worker.key, now)
        if patience is None or waited <= patience:
            return ""
        return f"no slot of pool {offer.name} came free in {patience:.0f} s"
