"""What the steps of a run need, as a real code server tells it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster import DagsterInstance
    from dagster._core.remote_origin import (
        GrpcServerCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._grpc.types import ExecutionPlanSnapshotArgs
    from dagster._serdes import serialize_value

from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.dagster_plus.serdes import Packed
from hpc_agent.grpc.client import CodeServerClient
from hpc_agent.runs.step_needs import StepNeeds

CODE = """
import dagster as dg

from dagster_hpc import slurm_executor

@dg.op(tags={"dagster-hpc/mem": "1G"})
def large(): ...

@dg.job(executor_def=slurm_executor)
def nightly(): large()
"""


@dataclass(frozen=True, slots=True)
class OneServer:
    """Calls of an agent with one code server."""

    client: CodeServerClient

    @asynccontextmanager
    async def use(self, _: tuple[str, str], **__: Any) -> AsyncIterator[CodeServerClient]:
        yield self.client


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """A real code server on a unix socket."""
    (tmp_path / "code.py").write_text(CODE)
    argv = [sys.executable, "-W", "ignore", "-m", "dagster", "api", "grpc", "--socket"]
    server = subprocess.Popen(
        [*argv, str(tmp_path / "s"), "--python-file", str(tmp_path / "code.py")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "s").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield tmp_path / "s"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
async def client(socket: Path) -> AsyncIterator[CodeServerClient]:
    opened = CodeServerClient(socket)
    yield opened
    await opened.close()


@pytest.fixture
def instance(tmp_path: Path) -> Packed:
    """The reference of an instance."""
    home = tmp_path / "instance"
    home.mkdir()
    (home / "dagster.yaml").touch()
    with DagsterInstance.from_config(str(home)) as instance:
        return dict(json.loads(serialize_value(instance.get_ref())))


async def test_each_run_goes_by_its_own_configuration(
    client: CodeServerClient, instance: Packed
) -> None:
    """The plan that the server gives for two runs of one job is the same."""
    names = json.loads(await client.list_repositories())["repository_code_pointer_dict"]
    needs = StepNeeds(OneServer(client))  # type: ignore[arg-type]
    found = []
    for config in ({}, {"default": "process"}, {"default": "job"}):
        run = a_run(next(iter(names)), {"execution": {"config": config}})
        run, unknown = await needs.added_to(
            run, deployment="prod", is_branch=False, instance=instance
        )
        assert unknown == ""
        found.append(run.steps)
    assert found == [(), (("large", {"dagster-hpc/mem": "1G"}),), ()]


def a_run(repository: str, config: dict[str, Any]) -> RunToLaunch:
    """Return a run of the job as the control plane launches it."""
    location = GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name="here")
    selection = ExecutionPlanSnapshotArgs(
        job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, repository), "nightly"),
        op_selection=[],
        run_config=config,
        step_keys_to_execute=None,
        job_snapshot_id="snapshot",
    )
    return RunToLaunch(
        run_id="r",
        job_name="nightly",
        location="here",
        tags={},
        code_origin=None,
        selection=json.loads(serialize_value(selection)),
    )
