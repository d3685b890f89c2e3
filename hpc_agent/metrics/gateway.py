"""The metrics of the self-hosted control plane's gateway."""

from __future__ import annotations

from hpc_agent.metrics.http import HttpMetrics
from hpc_agent.metrics.metric import CALL_SECONDS, TRANSACTION_SECONDS, Catalogue

GATEWAY = Catalogue("hpc_gateway")

BUILD_INFO = GATEWAY.gauge("build_info", "Always 1; its labels say what runs.", "version", "python")

API_REQUESTS = GATEWAY.histogram(
    "request_duration_seconds",
    "Requests to the agent API, until the end of the answer: by the path, for GraphQL by its first "
    "field. The long polls of agents are popUserCloudAgentRequests.",
    "operation", "status",
    buckets=CALL_SECONDS,
)  # fmt: skip
API_RECEIVED = GATEWAY.counter(
    "received_bytes_total", "Bodies of requests to the agent API, uploads among them.", "operation"
)
API_SENT = GATEWAY.counter("sent_bytes_total", "Bodies of answers of the agent API.", "operation")
API = HttpMetrics(requests=API_REQUESTS, received=API_RECEIVED, sent=API_SENT)
AUTHENTICATION_FAILURES = GATEWAY.counter(
    "authentication_failures_total",
    "Callers that were turned away. Listener: api or ui. Reason: no_token, unknown_token, or role.",
    "listener", "reason",
)  # fmt: skip

AGENT_HEARTBEAT = GATEWAY.gauge(
    "agent_last_heartbeat_timestamp_seconds",
    "When an agent's heartbeat last came; agents silent for a week are forgotten.",
    "deployment", "agent",
)  # fmt: skip
AGENTS_CONNECTED = GATEWAY.gauge(
    "agents_connected", "Agents whose heartbeat is less than a lease old."
)

REQUESTS = GATEWAY.gauge(
    "requests", "Requests to agents without an answer. State: queued or leased.", "state"
)
REQUESTS_OLDEST = GATEWAY.gauge(
    "requests_oldest_age_seconds", "How long the oldest of them has waited; 0 without any.", "state"
)

EVENT_WRITES = GATEWAY.histogram(
    "event_write_duration_seconds",
    "Batches of events of runs, until they are stored.",
    buckets=CALL_SECONDS,
)
EVENTS_STORED = GATEWAY.counter(
    "events_stored_total", "Events of runs that were stored; repeated writes do not count."
)

DATABASE_TRANSACTIONS = GATEWAY.histogram(
    "database_transaction_duration_seconds",
    "Uses of a connection of the gateway's own tables. Kind: read or write.",
    "kind",
    buckets=TRANSACTION_SECONDS,
)
CHILD_STARTS = GATEWAY.counter(
    "child_starts_total", "Starts of the webserver and the daemon, the first one too.", "program"
)
CERTIFICATE_EXPIRY = GATEWAY.gauge(
    "certificate_expiry_timestamp_seconds", "When the certificate of the agent API expires."
)
EVENT_LOOP_LAG = GATEWAY.histogram(
    "event_loop_lag_seconds",
    "How late the event loop comes to what is due, sampled each second.",
    buckets=CALL_SECONDS,
)
DISK_FREE = GATEWAY.gauge("disk_free_bytes", "What is left for this account where the home is.")
