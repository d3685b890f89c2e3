"""The QueuedRunCoordinator, which tells the daemon that a run is in its queue."""

from __future__ import annotations

from pathlib import Path

from dagster import DagsterRun, QueuedRunCoordinator
from dagster._core.run_coordinator import SubmitRunContext

from hpc_agent.doorbell import ring


class RingingRunCoordinator(QueuedRunCoordinator):
    """Enqueues as the stock one does, and rings at the control plane's home."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Enqueue a run. Raises what ``QueuedRunCoordinator.submit_run`` does."""
        run = super().submit_run(context)
        ring(Path(self._instance.root_directory))
        return run
