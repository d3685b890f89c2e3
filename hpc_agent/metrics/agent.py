"""The metrics of the agent."""

from __future__ import annotations

from hpc_agent.metrics.http import HttpMetrics
from hpc_agent.metrics.metric import CALL_SECONDS, JOB_SECONDS, TRANSACTION_SECONDS, Catalogue

AGENT = Catalogue("hpc_agent")

BUILD_INFO = AGENT.gauge("build_info", "Always 1; its labels say what runs.", "version", "python")

JOBS = AGENT.gauge(
    "jobs",
    "Workers (runs, code servers, packs) on which the last word is not said yet, by the agent's "
    "phase and the scheduler's state.",
    "kind", "phase", "state", "location",
)  # fmt: skip
JOB_QUEUE_SECONDS = AGENT.histogram(
    "job_queue_seconds",
    "From the intent of a worker to the start of its job.",
    "kind", "location",
    buckets=JOB_SECONDS,
)  # fmt: skip
JOB_RUN_SECONDS = AGENT.histogram(
    "job_run_seconds",
    "From the start of a worker's job to its end.",
    "kind", "location",
    buckets=JOB_SECONDS,
)  # fmt: skip
JOBS_ENDED = AGENT.counter(
    "jobs_ended_total",
    "Workers that are over, by how they ended: the scheduler's state, or the agent's phase where "
    "no job was had.",
    "kind", "location", "outcome",
)  # fmt: skip
CODE_SERVERS = AGENT.gauge(
    "code_servers", "Code servers that are not retired.", "status", "location"
)

POOL_ALLOCATIONS = AGENT.gauge(
    "pool_allocations",
    "Allocations of a pool of warm workers, in Slurm's queue or running.",
    "pool",
)
POOL_SLOTS = AGENT.gauge(
    "pool_slots",
    "Slots that the supervisors of a pool have told of. State: busy, or free.",
    "pool", "state",
)  # fmt: skip
POOL_WAITING = AGENT.gauge(
    "pool_waiting", "Runs and steps that wait for a slot of a pool, and are not paused.", "pool"
)
POOL_STOPPED = AGENT.gauge(
    "pool_stopped",
    "1 for a pool that starts no allocation any more, after those that failed.",
    "pool",
)

PAUSED = AGENT.gauge(
    "location_paused",
    "1 for each location that an operator has paused; its deployment is empty for all of them.",
    "location", "deployment",
)  # fmt: skip
DRAINING = AGENT.gauge("draining", "1 while the agent takes nothing new, else 0.")

REQUESTS = AGENT.histogram(
    "request_duration_seconds",
    "Work on a request of the control plane. Outcome: answered, failed, or submitted (a launch, "
    "which is answered when its job is in the queue).",
    "api", "outcome",
    buckets=CALL_SECONDS,
)  # fmt: skip
REQUESTS_OPEN = AGENT.gauge("requests_open", "Requests that are worked on or wait for it.")
REQUESTS_OLDEST = AGENT.gauge(
    "requests_oldest_age_seconds", "How long the oldest of them has been here; 0 without any."
)

SCHEDULER_CALLS = AGENT.histogram(
    "scheduler_call_duration_seconds",
    "Calls of Slurm, without the wait for the rate limit: a command (cli, ssh), a request's path "
    "(rest) or a function (pyslurm). Outcome: ok, failed, or timeout.",
    "command", "outcome",
    buckets=CALL_SECONDS,
)  # fmt: skip

OUTGOING = AGENT.gauge(
    "outgoing_messages",
    "What is to be told to the control plane: the agent's own messages (outbox) and the event "
    "writes of jobs (spool). State: waiting, or set_aside (the control plane does not take it).",
    "queue", "state",
)  # fmt: skip
OUTGOING_OLDEST = AGENT.gauge(
    "outgoing_oldest_age_seconds", "How long the oldest has waited; 0 without any.", "queue"
)

RELAY_CONNECTIONS = AGENT.gauge(
    "relay_connections", "Open connections of jobs. Known: whether a valid token came.", "known"
)
RELAY_TURNED_AWAY = AGENT.counter(
    "relay_turned_away_total", "Connections that were closed at once: no room, or a wrong network."
)
RELAY_REQUESTS = AGENT.histogram(
    "relay_request_duration_seconds",
    "Requests of jobs to the relay, until the end of the answer. A status from 400 on is a "
    "refusal: 401 no valid token, 403 not allowed, 503 come back later.",
    "operation", "status",
    buckets=CALL_SECONDS,
)  # fmt: skip
RELAY_RECEIVED = AGENT.counter(
    "relay_received_bytes_total", "Bodies of jobs' requests.", "operation"
)
RELAY_SENT = AGENT.counter("relay_sent_bytes_total", "Bodies of the relay's answers.", "operation")
RELAY = HttpMetrics(requests=RELAY_REQUESTS, received=RELAY_RECEIVED, sent=RELAY_SENT)
RELAY_CERTIFICATE_EXPIRY = AGENT.gauge(
    "relay_certificate_expiry_timestamp_seconds", "When the relay's certificate expires."
)

LOOP_SUCCESS = AGENT.gauge(
    "loop_last_success_timestamp_seconds",
    "When a loop of the agent (poll, heartbeat, watch, …) last did a step without an error.",
    "loop",
)
LOOP_FAILURES = AGENT.counter("loop_failures_total", "Steps of a loop that failed.", "loop")
EVENT_LOOP_LAG = AGENT.histogram(
    "event_loop_lag_seconds",
    "How late the event loop comes to what is due, sampled each second.",
    buckets=CALL_SECONDS,
)
STORE_TRANSACTIONS = AGENT.histogram(
    "store_transaction_duration_seconds",
    "Transactions of the state database, until they are on disk.",
    buckets=TRANSACTION_SECONDS,
)
DISK_FREE = AGENT.gauge(
    "disk_free_bytes", "What is left for this account where the agent's home is."
)
