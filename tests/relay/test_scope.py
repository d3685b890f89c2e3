"""What a job may send: every stock document is decided, in the way that is written down here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from dagster_cloud.secrets import loader
from dagster_cloud.storage.defs_state import queries as defs_state_queries
from dagster_cloud.storage.event_logs import queries as event_log_queries
from dagster_cloud.storage.runs import queries as run_queries
from dagster_cloud.storage.schedules import queries as schedule_queries

from hpc_agent.config.access import Operation
from hpc_agent.inbound.errors import InputError
from hpc_agent.relay.documents import Call, calls
from hpc_agent.relay.identity import JobIdentity, Permissions
from hpc_agent.relay.scope import call_refusal, events_refusal, logs_refusal, writes_of

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
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<calls>`[^|]+) \| (?P<cells>.*) \|$", re.MULTILINE)
Kind = Literal["run_worker", "code_server"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: what each kind of job may do with some calls."""

    calls: frozenset[str]
    allowed: dict[Kind, str]
    opened_by: str


def rows() -> list[Row]:
    """Read the table of docs/security.md."""
    found = []
    section = PAGE.read_text().partition("## Who may ask what")[2].partition("\n## ")[0]
    for match in ROW.finditer(section):
        run_worker, code_server, opened_by = match["cells"].split(" | ")
        calls_of = frozenset(re.findall(r"`(\w+)`", match["calls"]))
        found.append(
            Row(calls_of, {"run_worker": run_worker, "code_server": code_server}, opened_by)
        )
    return found


ROWS = {name: row for row in rows() for name in row.calls}


def identity(kind: Kind = "run_worker", access: Permissions | None = None) -> JobIdentity:
    return JobIdentity(
        key="run-1",
        kind=kind,
        deployment="prod",
        run_id="mine" if kind == "run_worker" else None,
        location="here",
        access=access or Permissions(reads_all=kind == "code_server"),
        started_from=frozenset({"parent"}),
        backfill_id="ours",
    )


def variables_of(run: str, event_type: str, backfill: str, location: str) -> dict[str, Any]:
    return {
        "runId": run,
        "filters": {"runIds": [run]},
        "runsFilter": {"runIds": [run]},
        "eventRecord": {"runId": run},
        "eventRecords": [{"runId": run}],
        "eventRecordsFilter": {"eventType": event_type},
        "backfillId": backfill,
        "serializedTelemetry": json.dumps({"run_id": run}),
        "locationName": location,
    }


OWN = variables_of("mine", "ASSET_MATERIALIZATION", "ours", "here")
OTHERS = variables_of("other", "STEP_SUCCESS", "theirs", "there")
# Whose these are, the relay asks the agent: test_attacks.py.
ASKED = {"setLatestDefsStateVersion"}


def document_refusal(job: JobIdentity, document: str, variables: dict[str, Any]) -> str | None:
    try:
        return call_refusal(job, calls(document), variables)
    except InputError as error:
        return str(error)


def is_let_through(job: JobIdentity, name: str, variables: dict[str, Any]) -> bool:
    return document_refusal(job, STOCK[name], variables) is None


@pytest.mark.parametrize("name", sorted(STOCK))
@pytest.mark.parametrize("kind", ["run_worker", "code_server"])
def test_each_cell_of_the_table(name: str, kind: Kind) -> None:
    """Every stock document is in one row, and is decided as its row says."""
    (call,) = calls(STOCK[name])
    row = ROWS[call.name or call.root]
    cell = row.allowed[kind]
    job = identity(kind)
    assert is_let_through(job, name, OWN) is (cell != "no")
    by_others = cell == "yes" or (kind == "code_server" and cell == "location")
    if call.root == "scopedSecrets":
        by_others = False
    assert is_let_through(job, name, OTHERS) is (by_others or call.name in ASKED)
    opens = re.search(r"allow: \[(\w+)\]", row.opened_by)
    if opens is not None:
        opened = Permissions(operations=frozenset({cast("Operation", opens[1])}))
        assert is_let_through(identity(kind, opened), name, OTHERS)
    elif "deployment" in row.opened_by:
        assert is_let_through(identity(kind, Permissions(reads_all=True)), name, OTHERS)
        assert is_let_through(identity(kind, Permissions()), name, OTHERS) is False


def test_no_call_is_in_two_rows() -> None:
    """And the table names no call that the stock storages do not make."""
    assert sum(len(row.calls) for row in rows()) == len(ROWS)
    made = {call.name or call.root for text in STOCK.values() for call in calls(text)}
    assert set(ROWS) == made


@pytest.mark.parametrize(
    ("call", "variables"),
    [
        ("getRuns", {}),
        ("getRuns", {"filters": {}}),
        ("getRuns", {"filters": {"runIds": []}}),
        ("getRuns", {"filters": {"runIds": ["mine", "other"]}}),
        ("getRuns", {"filters": {"runIds": [None]}}),
        ("getRuns", {"filters": {"runIds": [["mine"]]}}),
        ("getRuns", {"filters": {"tags": [{"key": "k", "value": "v"}]}}),
        ("getRunById", {}),
        ("getEventRecords", {}),
        ("getEventRecords", {"eventRecordsFilter": {"eventType": "RUN_SUCCESS"}}),
        ("getBackfill", {"backfillId": None}),
    ],
)
def test_run_worker_reads_no_other_run(call: str, variables: dict[str, Any]) -> None:
    """Named or not named; those that it was started from are its own."""
    (name,) = (name for name, text in STOCK.items() if calls(text)[0].name == call)
    reason = document_refusal(identity(), STOCK[name], variables)
    assert reason is not None
    assert "access.run_workers_read: deployment" in reason
    if call == "getRuns":
        assert is_let_through(identity(), name, {"filters": {"runIds": ["mine", "parent"]}})


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
        (
            "mutation M($mine: X, $others: X) { eventLogs "
            "{ StoreEventBatch(eventRecord: $mine, eventRecords: $others) { ok } } }",
            {"mine": {"runId": "mine"}, "others": [{"runId": "other"}]},
        ),
        (
            "query Q($mine: X, $others: X) { runs "
            "{ getRunPartitionData(filters: $mine, runsFilter: $others) } }",
            {"mine": {"runIds": ["mine"]}, "others": {"runIds": ["other"]}},
        ),
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
        (
            run_queries.ADD_RUN_TELEMETRY_MUTATION,
            {"serializedTelemetry": '{"run_id": "other", "run_id": "mine"}'},
        ),
        (run_queries.ADD_RUN_TELEMETRY_MUTATION, {"serializedTelemetry": "[" * 100_000}),
        (run_queries.ADD_RUN_TELEMETRY_MUTATION, {"serializedTelemetry": None}),
        (event_log_queries.STORE_EVENT_MUTATION, {"eventRecord": {"runId": ["mine"]}}),
        (event_log_queries.GET_EVENT_RECORDS_QUERY, {"eventRecordsFilter": {"eventType": []}}),
        (f"query {{ runs {{ getRunById(runId: {'9' * 5_000}) }} }}", {}),
        (f"query {{ runs {{ getRuns(filters: {'[' * 900}1{']' * 900}) }} }}", {}),
    ],
    ids=lambda _: "",
)
def test_what_a_run_worker_may_not_do(document: str, variables: dict[str, Any]) -> None:
    """Other runs, other locations, agents' work, and documents that hide what they do."""
    assert document_refusal(identity(), document, variables)


def test_literal_arguments_are_understood() -> None:
    """A run id written into the document counts as much as one in the variables."""
    own = 'mutation { runs { addRunTags(runId: "mine", jsonNewTags: "{}") { ok } } }'
    assert document_refusal(identity(), own, {}) is None


def test_events_and_logs_are_of_the_own_run() -> None:
    """The REST forms are held to the same rule."""
    assert events_refusal(identity(), ["mine", ""]) is None
    for runs in (["mine", "other"], [], [None], [["mine"]], ["parent"]):
        assert events_refusal(identity(), runs)
    assert events_refusal(identity("code_server"), ["other"]) is None
    assert logs_refusal(identity(), "mine") is None
    assert logs_refusal(identity(), "other")
    assert logs_refusal(identity("code_server"), "repository") is None


def test_runs_that_are_written_into_are_known() -> None:
    """So that the relay can ask whose they are."""
    document = event_log_queries.STORE_EVENT_BATCH_MUTATION
    records = {"eventRecords": [{"runId": "a"}, {"runId": "b"}]}
    assert writes_of(calls(document), records) == ["a", "b"]
    assert writes_of(calls(loader.SECRETS_QUERY), {}) == []
