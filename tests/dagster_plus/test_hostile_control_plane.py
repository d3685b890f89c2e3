"""Whatever a control plane answers, the agent gets a refusal that it knows, and soon."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hpc_agent.code_servers.deploy_data import DeployData
from hpc_agent.code_servers.direct_upload import DirectUpload
from hpc_agent.code_servers.legacy_upload import LegacyUpload
from hpc_agent.code_servers.uploads import _missing
from hpc_agent.config import ControlPlane, Retries, parse_config
from hpc_agent.dagster_plus import agent_calls, requests
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.errors import ConfigError, ControlPlaneError, ControlPlaneRefusedError
from hpc_agent.inbound.json_text import DEEPEST, loads
from hpc_agent.outgoing.text import storable_json
from hpc_agent.runs.recovery import policies_of
from hpc_agent.runs.worker_plan import plan_run
from tests.hostile_server import Reply, always, answer, hostile_server

DEEP = "[" * 100_000 + "]" * 100_000


@asynccontextmanager
async def agent(reply: Reply, **more: Any) -> AsyncIterator[AgentApi]:
    """Talk to a server that answers like this."""
    with hostile_server(reply) as server:
        plane = ControlPlane(url=server.url, timeout_seconds=2, **more)
        async with AgentApi(plane, token=lambda: "token", agent_id="agent") as api:
            yield api


async def poll(api: AgentApi) -> object:
    return await agent_calls.pop_requests(
        api, ["prod"], branch_deployments=True, queues=[None], wait_seconds=0
    )


CALLS: dict[str, Callable[[AgentApi], Awaitable[object]]] = {
    "poll": poll,
    "workspace": lambda api: agent_calls.workspace_entries(api, ["prod"], queues=[None]),
    "deployments": lambda api: agent_calls.missing_deployments(api, ["prod"]),
    "heartbeat": lambda api: agent_calls.add_heartbeats(api, {"prod": "{}"}, []),
    "run": lambda api: agent_calls.run_status(api, "r", deployment="prod"),
    "runs": lambda api: agent_calls.finished_runs(api, ["r"], deployment="prod"),
    "ids of runs": lambda api: agent_calls.existing_runs(api, ["r"], deployment="prod"),
    "direct upload": lambda api: DirectUpload(api).error("prod", "here", {}, "{}"),
    "legacy upload": lambda api: LegacyUpload(api).error("prod", "here", {}, "{}"),
}

ANSWERS = {
    "nested too deep": answer(DEEP.encode()),
    "errors nested too deep": answer(f'{{"errors": {DEEP}}}'.encode()),
    "a number beyond all measure": answer(b'{"data": ' + b"9" * 5000 + b"}"),
    "no UTF-8": answer(b'{"data": "\xff\xfe\xfd"}'),
    "JSON in UTF-32": answer("{]".encode("utf-32")),
    "an unpacking charset": answer(
        zlib.compress(b" " * 1000), "Content-Type: application/json; charset=zlib"
    ),
    "a charset that raises": answer(b"x", "Content-Type: text/plain; charset=undefined"),
    "a charset of names": answer(b"\xff" * 70, "Content-Type: text/plain; charset=idna"),
    "a date of no clock": answer(b"{}", "Date: Mon, 01 Jan 99999999999999999999 00:00:00 GMT"),
    "a date of no zone": answer(b"{}", "Date: Mon, 01 Jan 0001 00:00:00 +9999"),
    "packed, and broken": answer(b"\x1f\x8b nonsense", "Content-Encoding: gzip"),
    "packed, and cut off": answer(gzip.compress(b"{}")[:-9], "Content-Encoding: gzip"),
    "packed in another way": answer(b"{}", "Content-Encoding: br"),
    "packed twice": answer(gzip.compress(gzip.compress(b"{}")), "Content-Encoding: gzip, gzip"),
    "another place": answer(b"", "Location: http://127.0.0.1:1/", status="302 Found"),
    "a place that is none": answer(b"", "Location: http://[::1", status="308 Moved"),
    "a status of no kind": answer(b"{}", status="999 Beyond"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half an answer": answer(b'{"data": {}}')[:-3],
    "nothing": b"",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ANSWERS)
async def test_answer_that_is_none_is_an_error_of_ours(call: str, kind: str) -> None:
    """Whatever is asked; heartbeats and uploads may not care what is answered."""
    async with agent(always(ANSWERS[kind])) as api:
        try:
            await CALLS[call](api)
        except ControlPlaneError as error:
            assert len(str(error)) < 5000
        else:
            assert call in {"heartbeat", "legacy upload", "run"} or "date" in kind


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [(gzip.compress, "gzip"), (zlib.compress, "deflate"), (lambda data: data, "identity")],
)
async def test_answer_that_grows_beyond_bounds_is_not_read(
    packed: Callable[[bytes], bytes], encoding: str
) -> None:
    """600 KB of gzip are 600 MB of zeros."""
    size = 600 << 20 if encoding != "identity" else 80 << 20
    content = await asyncio.to_thread(packed, bytes(size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with agent(always(answer(content, f"Content-Encoding: {encoding}"))) as api:
        del content
        with pytest.raises(ControlPlaneError, match="larger than 64 MiB"):
            await poll(api)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 250 << 10


async def test_bytes_after_the_end_of_what_is_packed_are_not_read() -> None:
    """zlib keeps what follows, and copies all of it with each further part."""

    def reply(connection: socket.socket, head: str) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"")
        )
        for _ in range(200):
            connection.sendall(bytes(1 << 20))

    async with agent(reply) as api:
        with pytest.raises(ControlPlaneError, match="goes on after its end"):
            await poll(api)


def _drip_head(connection: socket.socket, head: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        connection.sendall(f"X-{number}: x\r\n".encode())
        time.sleep(0.1)


def _drip_body(connection: socket.socket, head: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b" ")
        time.sleep(0.1)


def _drip_hints(connection: socket.socket, head: str) -> None:
    for _ in range(200):
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.1)


@pytest.mark.parametrize("drip", [_drip_head, _drip_body, _drip_hints])
async def test_answer_that_drips_ends_with_the_deadline(drip: Reply) -> None:
    """Each byte comes in time, and the answer never."""
    async with agent(drip) as api:
        started = time.monotonic()
        with pytest.raises(ControlPlaneError, match="no whole answer within 2 s"):
            await api.get("/check_snapshot", deployment="prod", parameters={})
        assert time.monotonic() - started < 4


async def test_cookies_are_not_kept() -> None:
    """A hundred kilobytes of them with each answer would fill the agent, and go out again."""
    heads: list[str] = []

    def reply(connection: socket.socket, head: str) -> None:
        heads.append(head)
        connection.sendall(answer(b"{}", "Set-Cookie: a=b; Path=/", "Connection: close"))

    async with agent(reply) as api:
        for _ in range(2):
            await api.get("/x", deployment="prod", parameters={})
        assert len(api.http.cookies) == 0
    assert "cookie:" not in heads[1].lower()


def _told(url: object) -> Reply:
    """Answer as a control plane that wants a snapshot stored there."""
    content = json.dumps({"upload_data": {"format": "json", "presigned_put_url": url}})
    return always(answer(content.encode(), "Connection: close"))


@pytest.mark.parametrize("url", ["{there}/x", "http://169.254.169.254/x", "file:///x", None, [1]])
async def test_snapshot_is_not_sent_to_just_any_address(url: Any) -> None:
    """Not to another port of this machine either: that may be Slurm's."""
    with hostile_server(always(answer(b"{}"))) as there:
        told = url.format(there=there.url) if isinstance(url, str) else url
        async with agent(_told(told)) as api:
            with pytest.raises(ControlPlaneRefusedError, match="nothing was sent"):
                await DirectUpload(api).error("prod", "here", {}, "{}")
        assert there.heads == []


async def test_upload_follows_no_redirect() -> None:
    """Storage that is known may lead elsewhere."""
    with hostile_server(always(answer(b"{}"))) as there:
        moved = answer(b"", f"Location: {there.url}/x", status="307 Temporary Redirect")
        async with agent(always(moved)) as api:
            with pytest.raises(ControlPlaneError, match="HTTP 307"):
                await api.put_presigned(str(api.http.base_url), b"x")
        assert there.heads == []


async def test_same_holds_by_https(tmp_path: Path) -> None:
    """With the certificate of ``ca_bundle``, and with no other."""
    content = gzip.compress(bytes(100 << 20))
    reply = always(answer(content, "Content-Encoding: gzip"))
    with hostile_server(reply, tls=tmp_path) as server:
        for bundle, words in ((tmp_path / "relay-certificate.pem", "larger than"), (None, "verif")):
            plane = ControlPlane(url=server.url, ca_bundle=bundle)
            async with AgentApi(plane, token=lambda: "token", agent_id="agent") as api:
                with pytest.raises(ControlPlaneError, match=words):
                    await poll(api)


# Any JSON, and more than JSON: what Python's reader takes as well.
TEXT = st.text(max_size=20) | st.sampled_from(["{tmp}", "\0", "\ud800", "run_id", "9" * 5000])
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
HARD = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def shaped(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with these fields, of which now and then one is missing or anything at all."""
    often = {name: st.one_of(each, each, each, VALUES) for name, each in fields.items()}
    return st.fixed_dictionaries(often) | st.fixed_dictionaries({}, optional=often)


REQUEST = shaped(
    requestId=TEXT,
    requestApi=st.sampled_from(["LAUNCH_RUN", "PING_LOCATION"]),
    requestBody=TEXT,
    deploymentName=TEXT,
    isBranchDeployment=st.booleans(),
)
ENTRY = shaped(
    locationName=TEXT,
    serializedDeploymentMetadata=TEXT,
    hasOutdatedData=st.booleans(),
    metadataTimestamp=NUMBERS,
)
DATA = shaped(
    userCloudAgent=shaped(
        popUserCloudAgentRequests=st.lists(REQUEST, max_size=3), addAgentHeartbeats=VALUES
    ),
    deployments=st.lists(
        shaped(deploymentName=TEXT, workspaceEntries=st.lists(ENTRY, max_size=2)), max_size=2
    ),
    runs=shaped(
        getRunById=VALUES.map(json.dumps), getRuns=st.lists(VALUES.map(json.dumps), max_size=3)
    ),
)
CONTENT = shaped(
    data=DATA,
    errors=VALUES,
    maintenance=VALUES,
    stored_snapshot=VALUES,
    upload_data=shaped(format=TEXT, presigned_put_url=TEXT),
    updated=VALUES,
)


@HARD
@given(content=CONTENT | VALUES, call=st.sampled_from(sorted(CALLS)))
def test_any_json_is_an_answer_or_an_error_of_ours(content: Any, call: str) -> None:
    """By a real connection."""

    async def ask() -> None:
        async with agent(always(answer(json.dumps(content).encode(), "Connection: close"))) as api:
            await CALLS[call](api)

    try:
        asyncio.run(ask())
    except ControlPlaneError as error:
        assert len(str(error)) < 5000


ORIGIN = shaped(
    location_name=TEXT, external_repository_origin=VALUES, repository_location_origin=VALUES
)
CODE_ORIGIN = shaped(
    repository_origin=shaped(
        executable_path=TEXT,
        container_image=TEXT,
        container_context=VALUES,
        code_pointer=shaped(working_directory=TEXT),
    )
)
TAG_VALUES = TEXT | st.sampled_from(
    ['{"mem": 1e999}', '{"a": ' + DEEP + "}", '{"action": "resubmit", "mem_factor": 1e999}', "5:00"]
)
TAGS = st.dictionaries(
    st.sampled_from(["config", "mem", "time", "gres", "nodes", "image", "extra", "on-timeout"]).map(
        "dagster-hpc/{}".format
    )
    | TEXT,
    TAG_VALUES,
    max_size=4,
)
RUN = shaped(
    run_id=TEXT,
    pipeline_name=TEXT,
    tags=TAGS,
    pipeline_code_origin=CODE_ORIGIN,
    external_pipeline_origin=ORIGIN,
    status=VALUES,
)
BODIES = st.one_of(
    shaped(request_args=shaped(pipeline_run=RUN, timeout=NUMBERS), expire_at=NUMBERS).map(
        json.dumps
    ),
    VALUES.map(json.dumps),
    st.text(max_size=50),
    st.just(DEEP),
)
CONFIG = parse_config(
    {
        "control_plane": {"url": "https://x"},
        "work_dir": "/work",
        "environment": {"python": "/py"},
        "policy": {"max": {"mem": "10G", "time": "1:00:00"}},
    },
    source="test",
)


def about(**run: object) -> str:
    """Return the body of a request about a run."""
    return json.dumps({"request_args": {"pipeline_run": {"run_id": "r", **run}}, "expire_at": 1})


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BODIES)
@example(about(run_id=["r"]))
@example(about(run_id="r" * 100_000))
@example(about(tags=["a"]))
@example(about(tags={"a": 1}))
@example(about(pipeline_name={"a": 1}))
@example(about(pipeline_code_origin="x"))
@example(about(pipeline_code_origin={"repository_origin": "x"}))
@example(about(pipeline_code_origin={"repository_origin": {"code_pointer": "x"}}))
@example(about(pipeline_code_origin={"repository_origin": {"executable_path": ["x"]}}))
@example(about(tags={"dagster-hpc/mem": "9" * 5000}))
@example(about(tags={"dagster-hpc/config": '{"mem": ' + "9" * 5000 + "}"}))
@example(about(tags={"dagster-hpc/config": '{"a": ' + DEEP + "}"}))
@example(about(tags={"dagster-hpc/on-timeout": '{"a": ' + DEEP + "}"}))
@example(json.dumps({"request_args": {}, "expire_at": 10**400}))
def test_any_request_is_planned_or_refused_in_our_words(body: str) -> None:
    """From the body to the specification of the job."""
    try:
        opened = requests.opened(body)
        requests.location_of(opened.args)
        requests.seconds_in(opened.args, "timeout")
        run = requests.run_of(opened.args)
        policies_of(Retries(), run.tags)
        plan = plan_run(CONFIG, run, deployment="prod")
    except (ControlPlaneError, ConfigError) as error:
        assert len(str(error)) < 20_000
    else:
        plan.spec.to_json().encode()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        shaped(
            executable_path=TEXT,
            image=TEXT,
            python_file=TEXT,
            cloud_context_env=st.dictionaries(TEXT, TEXT | NUMBERS, max_size=3),
            container_context=VALUES,
        ).map(json.dumps),
        VALUES.map(json.dumps),
        st.text(max_size=50),
        st.just(DEEP),
    )
)
def test_any_deploy_data_is_read_or_refused_in_our_words(text: str) -> None:
    """What comes of it can be the environment of a process."""
    try:
        data = DeployData.parse(text)
    except ConfigError as error:
        assert len(str(error)) < 5000
        return
    for name, value in (data.context_variables() | data.target_variables()).items():
        assert name
        assert "\0" not in f"{name}{value}"
        f"{name}={value}".encode()


@settings(max_examples=200, deadline=None)
@given(shaped(missing_job_snapshots=st.lists(shaped(repository_name=TEXT, job_name=TEXT))))
def test_any_answer_to_an_upload_is_read_or_refused(content: dict[str, Any]) -> None:
    """Which snapshots are asked for."""
    try:
        jobs = _missing(content)
    except ControlPlaneError:
        return
    assert all(isinstance(name, str) and name for job in jobs for name in job)


def test_json_is_read_as_deep_as_everybody_can_handle_it() -> None:
    """Not deeper, whatever the reader itself could do."""
    assert loads("[" * DEEPEST + "]" * DEEPEST)
    for levels in (DEEPEST + 1, 900, 100_000):
        with pytest.raises(ValueError, match="nested more than"):
            loads("[" * levels + "]" * levels)
    assert loads("[" + "[], " * 1000 + "[]]")


def test_text_of_half_pairs_is_mended_where_it_is_read() -> None:
    """So that no key, no file and no table stumbles over it."""
    run = {"run_id": "a\ud800", "pipeline_name": "\udfff"}
    body = json.dumps({"request_args": {"pipeline_run": run}})
    assert requests.run_of(requests.opened(body).args).run_id == "a\ufffd"
    assert storable_json(body) != body
