"""The gRPC client, against a real code server and against dagster's own descriptors."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster._core.remote_representation.external_data import (
        extract_serialized_job_snap_from_serialized_job_data_snap,
    )
    from dagster._grpc.__generated__ import dagster_api_pb2

from hpc_agent.code_servers.definitions import job_snapshot, repository_origin
from hpc_agent.dagster_plus.serdes import is_error
from hpc_agent.errors import CodeServerError, CodeServerUnavailableError
from hpc_agent.grpc.client import EXECUTION_PLAN, PARTITION_SET, CodeServerClient
from hpc_agent.grpc.messages import _MESSAGES, message_class

CODE = """
import dagster as dg

@dg.asset
def one(): ...

defs = dg.Definitions(assets=[one])
"""


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    """A real code server on a unix socket."""
    with tempfile.TemporaryDirectory(prefix="hpc-grpc-") as path:
        directory = Path(path)
        (directory / "code.py").write_text(textwrap.dedent(CODE))
        argv = [sys.executable, "-W", "ignore", "-m", "dagster", "api", "grpc"]
        server = subprocess.Popen(
            [*argv, "--socket", str(directory / "s"), "--python-file", str(directory / "code.py")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not (directory / "s").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield directory / "s"
        server.terminate()
        server.wait(30)


@pytest.fixture
async def client(socket: Path) -> AsyncIterator[CodeServerClient]:
    opened = CodeServerClient(socket)
    yield opened
    await opened.close()


@pytest.mark.parametrize("name", sorted(_MESSAGES))
def test_messages_are_those_of_dagster(name: str) -> None:
    """Names, numbers and types of all fields are the installed dagster's."""
    theirs = dagster_api_pb2.DESCRIPTOR.message_types_by_name[name]
    ours = message_class(name).DESCRIPTOR
    assert [(f.name, f.number, f.type, f.is_repeated) for f in ours.fields] == [
        (f.name, f.number, f.type, f.is_repeated) for f in theirs.fields
    ]


async def test_definitions_of_a_location(client: CodeServerClient) -> None:
    """Listing, repository and job come back as Dagster wrote them."""
    await client.ping()
    listing = await client.list_repositories()
    assert not is_error(listing)
    name = next(iter(json.loads(listing)["repository_code_pointer_dict"]))
    origin = repository_origin("here", name)
    repository = json.loads(await client.repository(origin))
    assert repository["__class__"] == "ExternalRepositoryData"
    data = await client.job(origin, "__ASSET_JOB")
    assert job_snapshot(data) == extract_serialized_job_snap_from_serialized_job_data_snap(data)


async def test_error_in_an_argument_is_an_error_of_the_call(client: CodeServerClient) -> None:
    """What the server cannot read is told, unary or streamed."""
    for call in (EXECUTION_PLAN, PARTITION_SET):
        try:
            answer = await client.call(call, "{}")
        except CodeServerError:
            continue
        assert "Error" in answer


async def test_missing_server_is_unavailable_in_time(tmp_path: Path) -> None:
    """A call has its deadline, whatever happens."""
    client = CodeServerClient(tmp_path / "nothing")
    with pytest.raises(CodeServerUnavailableError):
        await client.ping(deadline_seconds=0.5)
    await client.close()


async def test_last_channel_is_collected_without_waiting(tmp_path: Path) -> None:
    """Nothing that the garbage collector finds may hold the event loop up."""
    gc.collect()
    with blockbuster_ctx():
        client = CodeServerClient(tmp_path / "nothing")
        await client.close()
        del client
        gc.collect()
