"""Everything that serves requests, built once and handed around."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from dagster import DagsterInstance

from hpc_agent.control_plane.agents_seen import agents_seen
from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.compute_logs import ComputeLogStore
from hpc_agent.control_plane.events import EventWriter
from hpc_agent.control_plane.faces.repositories import RepositoryReader
from hpc_agent.control_plane.heartbeats import HeartbeatReceiver
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.presence import AgentPresence
from hpc_agent.control_plane.request_queue import RequestQueue
from hpc_agent.control_plane.run_requests import RunRequests
from hpc_agent.control_plane.signed_urls import UrlSigner
from hpc_agent.control_plane.snapshots import FileBlobs, SnapshotStore
from hpc_agent.control_plane.store.agents import Agents
from hpc_agent.control_plane.store.blobs import DatabaseBlobs
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.deployments import Deployments
from hpc_agent.control_plane.store.idempotency import IdempotencyKeys
from hpc_agent.control_plane.store.locations import Locations
from hpc_agent.control_plane.store.requests import Requests
from hpc_agent.control_plane.store.settings import Settings
from hpc_agent.control_plane.store.sightings import Sightings
from hpc_agent.control_plane.store.tokens import Tokens
from hpc_agent.control_plane.uploads import LocationUploads
from hpc_agent.metrics.meter import SILENT, Meter
from hpc_agent.traces.tracer import SILENT as UNTRACED
from hpc_agent.traces.tracer import Tracer


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The gateway's parts. Those that block are for worker threads, the rest for the event loop."""

    database: Database
    instance: DagsterInstance
    tokens: Tokens
    deployments: Deployments
    locations: Locations
    agents: Agents
    requests: Requests
    keys: IdempotencyKeys
    snapshots: SnapshotStore
    repositories: RepositoryReader
    uploads: LocationUploads
    events: EventWriter
    compute_logs: ComputeLogStore
    heartbeats: HeartbeatReceiver
    presence: AgentPresence
    signer: UrlSigner
    queue: RequestQueue
    runs: RunRequests
    audit: AuditLog
    meter: Meter


def build_services(
    home: Home,
    database: Database,
    instance: DagsterInstance,
    meter: Meter = SILENT,
    tracer: Tracer = UNTRACED,
) -> Services:
    """Wire the parts together; needs a running event loop."""
    locations, agents, requests = Locations(database), Agents(database), Requests(database)
    blobs = DatabaseBlobs(database) if database.is_shared else FileBlobs(home.snapshots)
    snapshots, presence = SnapshotStore(blobs), AgentPresence()
    repositories = RepositoryReader(snapshots)
    keys = IdempotencyKeys(database)
    queue = RequestQueue(requests, presence, Sightings(database), tracer=tracer)
    return Services(
        database=database,
        instance=instance,
        tokens=Tokens(database),
        deployments=Deployments(database),
        locations=locations,
        agents=agents,
        requests=requests,
        keys=keys,
        snapshots=snapshots,
        repositories=repositories,
        uploads=LocationUploads(locations, snapshots, repositories),
        events=EventWriter(instance, keys, meter),
        compute_logs=ComputeLogStore(instance.compute_log_manager),
        heartbeats=HeartbeatReceiver(instance, agents, presence),
        presence=presence,
        signer=UrlSigner(Settings(database).url_key()),
        queue=queue,
        runs=RunRequests(instance, queue, partial(agents_seen, agents, presence)),
        audit=AuditLog(home.audit_log),
        meter=meter,
    )
