"""Tasks that go on beside the loops: what waits for an answer holds up nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from hpc_agent.errors import HpcAgentError
from hpc_agent.journal.about import Fields, about

log = logging.getLogger(__name__)


class Tasks:
    """Tasks that outlive the step that started them; an error in one ends that one alone."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(
        self, name: str, work: Coroutine[Any, Any, None], fields: Fields | None = None
    ) -> bool:
        """Start a task unless one with this name is at work; False when there is.

        ``fields`` are what its lines in the log carry.
        """
        if name in self._tasks:
            work.close()
            return False
        with about(fields or {}):
            task = asyncio.create_task(self._watched(name, work), name=name)
        self._tasks[name] = task
        return True

    def is_busy(self, name: str) -> bool:
        """Whether a task with this name is at work."""
        return name in self._tasks

    def count(self, prefix: str) -> int:
        """Return how many tasks whose names begin so are at work."""
        return sum(name.startswith(prefix) for name in self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    async def finish(self) -> None:
        """Wait until all tasks have ended by themselves."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def dismiss(self) -> None:
        """Cancel all tasks and wait for them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watched(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except HpcAgentError as error:
            log.warning("%s: %s", name, error)
        except Exception:
            log.exception("%s: unexpected error", name)
        finally:
            del self._tasks[name]
