"""The agent API as an ASGI application."""

from __future__ import annotations

from dagster_shared.serdes.errors import DeserializationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from hpc_agent.control_plane.http.artifacts import ArtifactEndpoints
from hpc_agent.control_plane.http.auth import Authentication, TokenFinder
from hpc_agent.control_plane.http.graphql import GraphQLEndpoint
from hpc_agent.control_plane.http.limits import BodyLimit, agent_api_limit
from hpc_agent.control_plane.http.maintenance import MaintenanceGate
from hpc_agent.control_plane.http.uploads import Uploads, bad_request, healthz
from hpc_agent.control_plane.services import Services
from hpc_agent.control_plane.store.artifacts import Artifacts
from hpc_agent.control_plane.store.maintenance import MaintenanceSwitch
from hpc_agent.errors import ControlPlaneRefusedError
from hpc_agent.metrics.gateway import API
from hpc_agent.metrics.http import Measured


def make_app(services: Services) -> Starlette:
    """Build the application: what each path does is in graphql.py, uploads.py and artifacts.py."""
    uploads = Uploads(services)
    artifacts = ArtifactEndpoints(Artifacts(services.database), services.signer)
    return Starlette(
        routes=[
            Route("/graphql", GraphQLEndpoint(services).__call__, methods=["POST"]),
            Route("/upload_api_response", uploads.upload_api_response, methods=["PUT"]),
            Route("/upload_workspace_entry", uploads.upload_workspace_entry, methods=["PUT"]),
            Route("/upload_job_snapshot", uploads.upload_job_snapshot, methods=["PUT"]),
            Route("/check_snapshot", uploads.check_snapshot, methods=["GET"]),
            Route("/confirm_upload", uploads.confirm_upload, methods=["PUT"]),
            Route(
                "/code_location_update_result",
                uploads.code_location_update_result,
                methods=["PUT"],
            ),
            Route("/gen_logs_url", uploads.gen_logs_url, methods=["GET"]),
            Route("/store_events", uploads.store_events, methods=["PUT", "POST"]),
            Route("/uploads/{segment}", uploads.upload, methods=["PUT"]),
            Route("/gen_artifact_get", artifacts.gen_artifact_get, methods=["POST"]),
            Route("/gen_artifact_post", artifacts.gen_artifact_post, methods=["POST"]),
            Route("/artifacts/{segment}", artifacts.fetch, methods=["GET"]),
            Route("/artifacts/{segment}", artifacts.put, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
        ],
        middleware=[
            Middleware(Measured, meter=services.meter, metrics=API),
            Middleware(
                Authentication,
                finder=TokenFinder(services.tokens),
                signer=services.signer,
                meter=services.meter,
            ),
            Middleware(MaintenanceGate, switch=MaintenanceSwitch(services.database)),
            Middleware(BodyLimit, limit_of=agent_api_limit),
        ],
        exception_handlers={
            ControlPlaneRefusedError: bad_request,
            DeserializationError: bad_request,
            KeyError: bad_request,
            ValueError: bad_request,
        },
    )
