"""The artifacts loop: removes what nobody uses, where that is wanted, and counts the rest.

A loop of its own: a walk through a large directory must not keep the lease from being renewed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict

from hpc_agent.agent.context import Context
from hpc_agent.jobs.artifacts import remove_unused, usage_of
from hpc_agent.store import meta

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 3600.0
_DAY_SECONDS = 24 * 3600.0


class ArtifactsLoop:
    """Looks at the artifacts of this machine's file systems once an hour."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def step(self) -> float:
        """Look once."""
        context, config = self._context, self._context.config
        directory, days = config.artifacts_directory, config.artifacts.keep_days
        if days is not None:
            before = context.wall() - days * _DAY_SECONDS
            removed = await asyncio.to_thread(remove_unused, directory, before=before)
            if removed:
                log.info("removed %d artifacts that nobody has used for %d days", removed, days)
        usage = json.dumps(asdict(await asyncio.to_thread(usage_of, directory)))
        await context.store.run(lambda db: meta.put(db, meta.ARTIFACTS, usage))
        return _INTERVAL_SECONDS
