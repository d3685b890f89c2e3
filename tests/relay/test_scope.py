"""What a job may send: every stock document is decided, in the way that is written down here."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any, Literal

import pytest
from dagster_cloud.secrets import loader
from dagster_cloud.storage.defs_state import queries as defs_state_queries
from dagster_cloud.storage.event_logs import queries as event_log_queries
from dagster_cloud.storage.runs import queries as run_queries
from dagster_cloud.storage.schedules import queries as schedule_queries

from hpc_agent.relay.documents import Call, calls
from hpc_agent.relay.identity import JobIdentity
from hpc_agent.relay.scope import document_refusal, logs_refusal, upload_refusal

STOCK = {
    f"{module.__name__}.{name}": text
    for module in (
        event_log_queries,
        run_queries,
        schedule_queries,
        defs_state_queries,
        loader,
    )
    for name, text in vars(module).items()
    if isinstance(text, str) and ("query " in text or "mutation " in text) and "{" in text
}
REFUSED_TO_ALL = {
    "eventLogs.DeleteEvents",
    "eventLogs.Upgrade",
    "eventLogs.Reindex",
    "eventLogs.Wipe",
    "eventLogs.EnableSecondaryIndex",
    "eventLogs.WipeAsset",
    "eventLogs.WipeAssetPartitions",
    "eventLogs.SetConcurrencySlots",
    "eventLogs.DeleteConcurrencyLimit",
    "runs.addDaemonHeartbeat",
    "runs.addBackfill",
    "runs.updateBackfill",
    "runs.mutateJobOrigin",
    "schedules.addJobState",
    "schedules.updateJobState",
    "schedules.createJobTick",
    "schedules.updateJobTick",
}
CODE_SERVERS_ONLY = {"runs.addRun", "runs.addHistoricalRun"}


def identity(kind: Literal["run_worker", "code_server"] = "run_worker") -> JobIdentity:
    return JobIdentity(
        key="run-1",
        kind=kind,
        deployment="prod",
        run_id="mine" if kind == "run_worker" else None,
        location="here",
    )


def own_variables() -> dict[str, Any]:
    return {
        "runId": "mine",
        "eventRecord": {"runId": "mine"},
        "eventRecords": [{"runId": "mine"}, {"runId": ""}],
        "serializedTelemetry": '{"run_id": "mine"}',
        "locationName": "here",
    }


@pytest.mark.parametrize("name", sorted(STOCK))
@pytest.mark.parametrize("kind", ["run_worker", "code_server"])
def test_each_stock_document_is_decided(
    name: str, kind: Literal["run_worker", "code_server"]
) -> None:
    """Reads and own writes pass; what only daemons or administrators do is refused."""
    (call,) = calls(STOCK[name])
    refused = f"{call.root}.{call.name}" in REFUSED_TO_ALL and call.operation == "mutation"
    if kind == "run_worker":
        refused = refused or f"{call.root}.{call.name}" in CODE_SERVERS_ONLY
    reason = document_refusal(identity(kind), STOCK[name], own_variables())
    assert (reason is not None) == refused, reason


def test_the_stock_documents_are_all_there() -> None:
    """The parametrized test above looks at what it claims to look at."""
    assert len(STOCK) > 70
    assert any(
        call
        == Call(
            operation="query",
            root="scopedSecrets",
            name="",
            arguments=(),
            result=("scopedSecrets",),
        )
        for text in STOCK.values()
        for call in [_without_arguments(calls(text)[0])]
    )


def _without_arguments(call: Call) -> Call:
    return replace(call, arguments=())


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        (event_log_queries.STORE_EVENT_MUTATION, {"eventRecord": {"runId": "other"}}),
        (event_log_queries.STORE_EVENT_MUTATION, {}),
        (event_log_queries.STORE_EVENT_BATCH_MUTATION, {"eventRecords": []}),
        (
            event_log_queries.STORE_EVENT_BATCH_MUTATION,
            {"eventRecords": [{"runId": "mine"}, {"runId": "other"}]},
        ),
        (event_log_queries.STORE_EVENT_BATCH_MUTATION, {"eventRecords": {"runId": "other"}}),
        (run_queries.ADD_RUN_TAGS_MUTATION, {"runId": "other"}),
        (run_queries.ADD_RUN_TAGS_MUTATION, {"runId": ""}),
        (run_queries.ADD_RUN_TELEMETRY_MUTATION, {"serializedTelemetry": '{"run_id": "other"}'}),
        (event_log_queries.FREE_CONCURRENCY_SLOTS_FOR_RUN_MUTATION, {"runId": "other"}),
        (loader.SECRETS_QUERY, {"locationName": "there"}),
        ("query { userCloudAgent { popUserCloudAgentRequests { id } } }", {}),
        ("mutation { userCloudAgent { popUserCloudAgentRequests { id } } }", {}),
        ("query { deployments { deploymentName } }", {}),
        ("query { __schema { types { name } } }", {}),
        ("subscription { eventLogs { x } }", {}),
        ("query A { runs { hasRun } } mutation B { eventLogs { Wipe { ok } } }", {}),
        ("mutation { ...f } fragment f on Mutation { eventLogs { Wipe { ok } } }", {}),
        ("mutation { eventLogs { ... on E { Wipe { ok } } } }", {}),
        ("mutation { runs: eventLogs { StoreEvent: Wipe { ok } } }", {}),
        ('mutation { runs { addRunTags(runId: "other", jsonNewTags: "{}") { ok } } }', {}),
        (
            'mutation M($r: String! = "other") { runs { addRunTags(runId: $r) { ok } } }',
            {},
        ),
        (
            'mutation { runs { addRunTags(runId: "other", runId: "mine") { ok } } }',
            {},
        ),
        ("this is no document", {}),
        ("query " + "{ runs " * 3000, {}),
    ],
)
def test_what_a_run_worker_may_not_do(document: str, variables: dict[str, Any]) -> None:
    """Other runs, other locations, agents' work, and documents that hide what they do."""
    assert document_refusal(identity(), document, variables)


def test_literal_arguments_are_understood() -> None:
    """A run id written into the document counts as much as one in the variables."""
    own = 'mutation { runs { addRunTags(runId: "mine", jsonNewTags: "{}") { ok } } }'
    assert document_refusal(identity(), own, {}) is None


def test_uploads_name_their_runs() -> None:
    """The REST form of event writes is held to the same rule."""
    assert upload_refusal(identity(), *_upload(["mine", ""])) is None
    assert upload_refusal(identity(), *_upload(["mine", "other"]))
    assert upload_refusal(identity("code_server"), *_upload(["other"])) is None
    assert "cannot be read" in (upload_refusal(identity(), b"junk", "text/plain") or "")


def test_logs_go_to_the_own_run() -> None:
    """A run worker gets upload addresses for its own run's logs only."""
    assert logs_refusal(identity(), [("log_key", "mine"), ("log_key", "step")]) is None
    assert logs_refusal(identity(), [("log_key", "other"), ("run_id", "mine")])
    assert logs_refusal(identity(), [])
    assert logs_refusal(identity("code_server"), [("log_key", "repository")]) is None


def _upload(runs: list[str]) -> tuple[bytes, str]:
    entries = [{"__class__": "EventLogEntry", "run_id": run} for run in runs]
    content = {"__class__": "StoreEventBatchRequest", "event_log_entries": entries}
    part = (
        b"--frontier\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n"
        + zlib.compress(json.dumps(content).encode())
        + b"\r\n--frontier--\r\n"
    )
    return part, "multipart/form-data; boundary=frontier"
