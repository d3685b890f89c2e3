"""Open pages of the web UI show compute logs as they are uploaded."""

from __future__ import annotations

import logging
import threading

from dagster import DagsterInstance
from dagster._core.storage.cloud_storage_compute_log_manager import (
    PollingComputeLogSubscriptionManager,
)
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0


def follow_uploads(manager: ComputeLogManager[DagsterInstance]) -> None:
    """Let subscriptions to local logs see what the gateway puts in place.

    A LocalComputeLogManager waits until files are modified, as runs of its own host do. The gateway
    replaces them: its watcher (watchdog, by inodes) then sees other files, and nobody is told.
    """
    if isinstance(manager, LocalComputeLogManager):
        following = Following(manager)  # type: ignore[no-untyped-call]
        manager._subscription_manager = following  # type: ignore[assignment]


class Following(PollingComputeLogSubscriptionManager):
    """Looks at all logs that somebody reads, and goes on doing so.

    Dagster's own loop ends for good when a page is opened or closed while it looks.
    """

    def _poll(self, shutdown_event: threading.Event) -> None:
        while not shutdown_event.wait(_LOOK_SECONDS):
            for each in [each for some in [*self._subscriptions.values()] for each in [*some]]:
                try:
                    each.fetch()
                except OSError as error:
                    log.warning("compute logs %s: %s", "/".join(each.log_key), error)
