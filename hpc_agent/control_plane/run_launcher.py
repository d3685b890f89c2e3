"""The DefaultRunLauncher, for locations of the gateway alone: it opens no instance for each launch.

The stock client opens a whole second DagsterInstance around StartRun, only to tell the run of an
error (``start_run`` of dagster/_grpc/client.py). That reads 176 revisions of Alembic, a tenth of a
second of computing for each launch, and bounds how many runs the daemon hands out.
"""

from __future__ import annotations

from typing import cast

from dagster import DefaultRunLauncher
from dagster._core.launcher import LaunchRunContext
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._grpc.__generated__.dagster_api_pb2 import StartRunRequest
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ExecuteExternalJobArgs
from dagster_shared.serdes import serialize_value


class FaceRunLauncher(DefaultRunLauncher):
    """Asks the face of a run's location to start it; cancels as the DefaultRunLauncher does."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run. Raises what ``DefaultRunLauncher.launch_run`` does."""
        run, workspace = context.dagster_run, context.workspace
        if workspace is None or run.remote_job_origin is None:
            super().launch_run(context)  # it says what is missing
            return
        name = run.remote_job_origin.repository_origin.code_location_origin.location_name
        location = cast("GrpcServerCodeLocation", workspace.get_code_location(name))
        client = _LaunchClient(socket=location.client.socket)
        self.launch_run_from_grpc_client(self._instance, run, client)


class _LaunchClient(DagsterGrpcClient):
    def start_run(self, execute_run_args: ExecuteExternalJobArgs) -> str:
        request = serialize_value(execute_run_args)
        reply = self._query("StartRun", StartRunRequest, serialized_execute_run_args=request)
        return str(reply.serialized_start_run_result)
