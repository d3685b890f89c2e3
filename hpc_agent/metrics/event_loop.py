"""How late the event loop is."""

from __future__ import annotations

import asyncio

from hpc_agent.metrics.meter import Meter
from hpc_agent.metrics.metric import Metric

_EVERY_SECONDS = 1.0


async def sample_lag(meter: Meter, metric: Metric) -> None:
    """Observe each second how late the wake-up came, until cancelled."""
    now = asyncio.get_running_loop().time
    while True:
        due = now() + _EVERY_SECONDS
        await asyncio.sleep(_EVERY_SECONDS)
        meter.observe(metric, max(now() - due, 0.0))
