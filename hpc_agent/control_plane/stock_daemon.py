"""The stock daemon, whose queue hears of a run at once.

    python -m hpc_agent.control_plane.stock_daemon run --workspace WORKSPACE_YAML

It is ``python -m dagster._daemon`` with another pause between two looks at the queue: the stock one
sleeps for a second or more (``IntervalDaemon.core_loop`` of dagster/_daemon/daemon.py).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dagster._core.workspace.context import IWorkspaceProcessContext
from dagster._daemon import controller
from dagster._daemon.cli import cli
from dagster._daemon.daemon import DaemonIterator, SpanMarker
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster_shared.serdes import serialize_value

from hpc_agent.control_plane.instance import reference_to
from hpc_agent.doorbell import waited_for

# What comes at once is taken together; how long a request to stop may take.
_GATHER_SECONDS = 0.02
_LOOK_SECONDS = 0.5


class RungRunCoordinatorDaemon(QueuedRunCoordinatorDaemon):
    """Looks into the queue when somebody rings, and each interval."""

    def core_loop(
        self,
        workspace_process_context: IWorkspaceProcessContext[Any],
        shutdown_event: threading.Event,
    ) -> DaemonIterator:
        """See IntervalDaemon.core_loop."""
        with waited_for(Path(workspace_process_context.instance.root_directory)) as wait:
            while True:
                until = time.monotonic() + self.interval_seconds
                yield SpanMarker.START_SPAN
                try:
                    yield from self.run_iteration(workspace_process_context)
                except Exception:  # noqa: BLE001  (as the stock loop: the next look may succeed)
                    yield serializable_error_info_from_exc_info(sys.exc_info())
                yield SpanMarker.END_SPAN
                while not shutdown_event.is_set() and (left := until - time.monotonic()) > 0:
                    if wait(min(left, _LOOK_SECONDS)):
                        time.sleep(_GATHER_SECONDS)
                        break
                    yield None
                yield None


if __name__ == "__main__":
    # create_daemon_of_type takes it from there.
    setattr(controller, QueuedRunCoordinatorDaemon.__name__, RungRunCoordinatorDaemon)
    reference = serialize_value(reference_to(Path(os.environ["DAGSTER_HOME"])))
    cli([*sys.argv[1:], "--instance-ref", reference], obj={})
