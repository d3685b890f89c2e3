"""The stock webserver's application on a unix socket, which its own command does not offer.

    python -m hpc_agent.control_plane.stock_webserver SOCKET WORKSPACE_YAML UPDATES_JSON

Does what ``dagster_webserver/cli.py`` does. Who can open the socket is the door: it says with
each request whether the visitor may only look, and the UI then shows its buttons as disabled.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.cli import (
    DEFAULT_DB_STATEMENT_TIMEOUT,
    DEFAULT_POOL_MAX_OVERFLOW,
    DEFAULT_POOL_RECYCLE,
)
from dagster_webserver.version import __version__
from starlette.requests import HTTPConnection

from hpc_agent.control_plane.instance import reference_to
from hpc_agent.control_plane.log_following import follow_uploads
from hpc_agent.control_plane.updates import UpdatesShown
from hpc_agent.control_plane.webserver_socket import READ_ONLY_HEADER

LIVE_DATA_POLL_MILLISECONDS = 2000


class VisitedWorkspace(WorkspaceProcessContext):
    """A workspace that each visitor sees with his own permissions, and with updates on the way."""

    def __init__(self, *args: Any, updates: UpdatesShown, **settings: Any) -> None:
        self._updates = updates
        super().__init__(*args, **settings)

    def create_request_context(self, source: object | None = None) -> WorkspaceRequestContext:
        """Make the context of one request; without the door's word it may only look."""
        word = source.headers.get(READ_ONLY_HEADER) if isinstance(source, HTTPConnection) else None
        return WorkspaceRequestContext(
            instance=self.instance,
            current_workspace=self._updates.within(self.get_current_workspace()),
            process_context=self, version=self.version, source=source,
            read_only=word != "no",
        )  # fmt: skip


def main(socket: str, workspace_yaml: str, updates_json: str) -> None:
    """Serve until SIGTERM."""
    configure_loggers(log_level="INFO")
    with DagsterInstance.from_ref(reference_to(Path(os.environ["DAGSTER_HOME"]))) as instance:
        instance.optimize_for_webserver(
            DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW
        )
        follow_uploads(instance.compute_log_manager)
        with VisitedWorkspace(
            instance, version=__version__, read_only=False,
            workspace_load_target=WorkspaceFileTarget([workspace_yaml]),
            updates=UpdatesShown(Path(updates_json)),
        ) as workspace:  # fmt: skip
            app = create_app_from_workspace_process_context(
                workspace, live_data_poll_rate=LIVE_DATA_POLL_MILLISECONDS
            )
            logging.getLogger("dagster-webserver").info("serving on %s", socket)
            # The door tells by which scheme it was reached: redirects name it.
            uvicorn.run(app, uds=socket, log_level="warning", forwarded_allow_ips="*")


if __name__ == "__main__":
    main(*sys.argv[1:])
