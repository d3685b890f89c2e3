"""What somebody with an agent's token tries at the gateway: hostile bodies, keys and documents."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.store.tokens import TokenKind
from tests.control_plane.conftest import AgentApi

PACKED = (
    "/upload_api_response",
    "/store_events",
    "/upload_workspace_entry",
    "/upload_job_snapshot",
)
PLAIN = ("/confirm_upload", "/code_location_update_result")
POSTED = ("/gen_artifact_get", "/gen_artifact_post")
DEEP = b"[" * 100_000
HOSTILE_JSON = [
    b"",
    b"{}",
    b"[]",
    b'"text"',
    b"\xff",
    DEEP,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b"9" * 5_000,
    "²".encode(),
    b'{"__class__": "StoreEventBatchRequest"}',
    b'{"__class__": "StoreEventBatchRequest", "event_log_entries": 3}',
    b'{"__class__": "StoreEventBatchRequest", "event_log_entries": '
    b'[{"__class__": "EventLogEntry"}]}',
    b'{"__class__": "DagsterCloudUploadApiResponse"}',
    b'{"__class__": "NoClassOfDagster"}',
    b'{"__class__": []}',
    b'{"__enum__": "x"}',
    b'{"__enum__": "DagsterRunStatus.NOPE"}',
    b'{"__set__": [[]]}',
    b'{"__class__": "AssetKey", "path": {}}',
    b'{"key": "\\ud800"}',
    b'{"key": 1}',
    b'{"key": "' + b"x" * 2_000 + b'"}',
]


def multipart(content: bytes) -> dict[str, Any]:
    return {"files": {"f": ("f", content)}}


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What was logged as a fault of ours."""
    found: list[str] = []
    yield found
    found += [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert found == []


@pytest.mark.parametrize("content", HOSTILE_JSON, ids=lambda _: "")
@pytest.mark.usefixtures("errors")
async def test_hostile_json_is_answered_with_4xx(api: AgentApi, content: bytes) -> None:
    """At every path that takes JSON, packed or not."""
    answers = []
    for path in PACKED[:-1]:
        answers.append(await api.client.put(path, **multipart(zlib.compress(content))))
    answers += [await api.client.put(path, content=content) for path in PLAIN]
    answers += [await api.client.post(path, content=content) for path in POSTED]
    answers.append(await api.client.post("/graphql", content=content))
    for answer in answers:
        assert answer.status_code in {400, 413}, (answer.url, answer.text)


@pytest.mark.parametrize("path", PACKED)
async def test_what_is_not_packed_is_refused(api: AgentApi, path: str) -> None:
    """Or is packed otherwise, cut off, or not alone."""
    good = zlib.compress(b"{}")
    requests: list[dict[str, Any]] = [
        {"content": b""},
        {"content": good},
        multipart(b""),
        multipart(b"{}"),
        multipart(gzip.compress(b"{}")),
        multipart(good[:-1]),
        multipart(zlib.compress(b"\xff")),
        {"files": {"f": ("f", good), "g": ("g", good)}},
        {"data": {"f": "no file"}},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        {"content": b"x", "headers": {"Content-Type": b"multipart/form-data; boundary=\xe9"}},
    ]
    for request in requests:
        answer = await api.client.put(path, **request)
        assert answer.status_code in {400, 413}, answer.text


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"io_type": "stdout"},
        {"log_key": ["a"]},
        {"log_key": ["a"], "io_type": "../x"},
        {"log_key": ["..", "..", "x"], "io_type": "stdout"},
        {"log_key": ["run", "%2e%2e", "x"], "io_type": "stdout"},
        {"log_key": ["run", "../x"], "io_type": "stdout"},
        {"log_key": ["run", "a\nb"], "io_type": "stdout"},
        {"log_key": ["run", "x" * 1001], "io_type": "stdout"},
    ],
    ids=lambda _: "",
)
async def test_log_key_leads_nowhere_else(api: AgentApi, query: dict[str, Any]) -> None:
    """No address is given for it."""
    answer = await api.client.get("/gen_logs_url", params=query)
    assert answer.status_code == 400


@pytest.mark.parametrize("size", ["²", "-1", "1e3", "9" * 5_000, "", "0x10"], ids=lambda _: "")
async def test_odd_sizes_are_refused(api: AgentApi, size: str) -> None:
    """Where a number of bytes is due."""
    query = {"type": "job", "sha1": "0" * 40, "size": size}
    assert (await api.client.get("/check_snapshot", params=query)).status_code == 400


@pytest.mark.parametrize(
    "segment",
    ["x", "%C3%A9.%C3%A9", "e30.", "%00.%00", "%FF.%FF", "a" * 5_000],
    ids=lambda _: "",
)
async def test_odd_upload_segments_are_refused(api: AgentApi, segment: str) -> None:
    """Also those that are not ASCII."""
    for path in ("/uploads/", "/artifacts/"):
        for method in ("PUT", "POST", "GET"):
            answer = await api.client.request(method, path + segment, content=b"")
            assert answer.status_code in {400, 405}


@pytest.mark.timeout(120)
async def test_small_bodies_do_not_fill_the_memory(api: AgentApi) -> None:
    """1 MB that would be 1 GB, and lists of millions; others are answered meanwhile."""
    bombs = [
        multipart(zlib.compress(bytes(1000 << 20), 9)),
        multipart(zlib.compress(b"[" + b"[]," * 20_000_000 + b"[]]", 9)),
    ]
    process = psutil.Process()
    before, peak = process.memory_info().rss, 0
    attacks = [
        asyncio.create_task(api.client.put(path, **bomb)) for bomb in bombs for path in PACKED
    ]
    while not all(task.done() for task in attacks):
        assert (await api.client.get("/healthz")).status_code == 200
        peak = max(peak, process.memory_info().rss)
    assert {task.result().status_code for task in attacks} <= {400, 413}
    assert peak - before < 1 << 30


async def test_snapshot_that_would_fill_the_memory_is_refused(api: AgentApi) -> None:
    """Its address is signed, and its content is not trusted for that."""
    query = {"type": "job", "sha1": "0" * 40, "size": "3", "formats": ["json.gz"]}
    checked = (await api.client.get("/check_snapshot", params=query)).json()
    url = checked["upload_data"]["presigned_put_url"]
    answer = await api.client.put(url, content=zlib.compress(bytes(600 << 20), 9))
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "document",
    [
        "query { " + " ".join(f"a{n}: runs {{ getRunsCount }}" for n in range(5_000)) + " }",
        "query { " + " ".join(f"a{n}: runs {{ getRunsCount }}" for n in range(1_000)) + " }",
        "query { " + "runs { " * 5_000 + "x" + " }" * 5_000 + " }",
        "query { runs { getRunById(runId: " + "9" * 5_000 + ") } }",
        "query { x" + " " * 200_000 + "}",
        "query {",
        "",
        "\ud800",
        "²",
    ],
    ids=lambda _: "",
)
@pytest.mark.usefixtures("errors")
async def test_costly_documents_are_refused(api: AgentApi, document: str) -> None:
    """Before anything of them is executed."""
    answer = await api.client.post("/graphql", content=json.dumps({"query": document}))
    assert answer.status_code in {200, 400, 413}
    assert answer.json()["errors"]
    assert not answer.json().get("data")


async def test_introspection_is_for_users(api: AgentApi, gateway: Gateway) -> None:
    """Agents, and jobs behind them, have no use for it."""
    query = {"query": "{ __schema { types { name } } }"}
    refused = (await api.client.post("/graphql", json=query)).json()
    assert "introspection" in refused["errors"][0]["message"]
    _, secret = gateway.services.tokens.create("somebody", TokenKind.USER)
    answer = await api.client.post(
        "/graphql", json=query, headers={"Dagster-Cloud-Api-Token": secret}
    )
    assert answer.json()["data"]["__schema"]["types"]


@pytest.mark.parametrize(
    ("call", "variables"),
    [
        ("runs { addRunTags(runId: $a, jsonNewTags: $b) { ok } }", ("r", "[]")),
        ("runs { addRunTags(runId: $a, jsonNewTags: $b) { ok } }", ("r", '{"a": {}}')),
        ("runs { addRunTags(runId: $a, jsonNewTags: $b) { ok } }", ("r", "[" * 50_000)),
        (
            "runs { addRunTelemetry(serializedTelemetry: $a, serializedTags: $b) { ok } }",
            ("{}", "{}"),
        ),
        (
            "eventLogs { StoreEvent(eventRecord: {level: 20, userMessage: $a, runId: $b, "
            'timestamp: 1, dagsterEvent: {eventTypeValue: "NO_TYPE", pipelineName: "p"}}) { ok } }',
            ("m", "r"),
        ),
        (
            "eventLogs { StoreEvent(eventRecord: {level: 20, userMessage: $a, runId: $a, "
            'timestamp: 1, dagsterEvent: {eventTypeValue: "STEP_START", pipelineName: "p", '
            "eventSpecificData: $b}}) { ok } }",
            ("m", '{"__class__": "StepOutputData"}'),
        ),
    ],
    ids=lambda _: "",
)
@pytest.mark.usefixtures("errors")
async def test_odd_values_in_mutations_are_refused_in_words(
    api: AgentApi, call: str, variables: tuple[str, str]
) -> None:
    """They are errors of who sent them, not faults of ours with a traceback."""
    first, second = variables
    document = (
        f"mutation ($a: String!, $b: {'JSONString' if 'Tags:' in call else 'String'}!) {{ {call} }}"
    )
    if "addRunTelemetry" in call:
        document = document.replace("JSONString", "String")
    body = {"query": document, "variables": {"a": first, "b": second}}
    answer = (await api.client.post("/graphql", json=body)).json()
    assert answer["errors"][0]["message"]


KEYS = st.sampled_from(
    ["query", "variables", "operationName", "__class__", "key", "id", "sha1", "\ud800"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(KEYS, each, max_size=4),
    max_leaves=10,
)
BODIES = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())


async def test_no_body_is_a_fault_of_ours(api: AgentApi) -> None:
    """Whatever is sent wherever: never 5xx."""
    loop = asyncio.get_running_loop()

    async def send(path: str, body: bytes, kind: str) -> httpx.Response:
        method = "POST" if path == "/graphql" or path in POSTED else "PUT"
        if kind == "packed":
            return await api.client.request(method, path, **multipart(zlib.compress(body)))
        return await api.client.request(method, path, content=body, headers={"Content-Type": kind})

    @settings(
        max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(
        path=st.sampled_from([*PACKED, *PLAIN, *POSTED, "/graphql"]),
        body=BODIES,
        kind=st.sampled_from(["packed", "application/json", "multipart/form-data; boundary=x"]),
    )
    def play(path: str, body: bytes, kind: str) -> None:
        answer = asyncio.run_coroutine_threadsafe(send(path, body, kind), loop).result(30)
        assert answer.status_code < 500, (path, body, kind, answer.text)

    await asyncio.to_thread(play)
