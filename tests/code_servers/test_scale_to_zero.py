"""Scale to zero for real: no server without requests, and one that comes back when it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from tests.e2e.conftest import running_stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

LOCAL = ClusterChoice(kind="local", version="", found="", slurm_conf=None)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack on the local scheduler whose code servers have five seconds."""
    ttl = {"server_ttl": {"enabled": True, "full_deployments_seconds": 5}}
    with running_stack(LOCAL, code_servers=ttl, compute_logs={"enabled": False}) as started:
        yield started


def server_states(stack: Stack) -> list[str]:
    config = str(stack.directories.agent_yaml)
    status = json.loads(stack.run_command("status", "--json", "--config", config))
    return [str(server["status"]) for server in status["code_servers"]]


def test_server_goes_without_requests_and_comes_back_with_the_next(stack: Stack) -> None:
    """The location stays loaded in the UI all the time, and a run needs no second try."""
    wait_for("the server does not stop", lambda: server_states(stack) == ["stopped"], seconds=60)
    assert stack.webserver.locations() == {"example": None}

    run_id = stack.webserver.launch("example", "sleepy_job", config=nap(1))

    assert stack.wait_finished(run_id) == "SUCCESS"
    wait_for(
        "the server does not stop again", lambda: server_states(stack) == ["stopped"], seconds=60
    )


def nap(seconds: int) -> dict[str, object]:
    return {"ops": {"sleep_and_tell": {"config": {"seconds": seconds}}}}
