"""What the agent's own calls make of answers that are to something else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hpc_agent.config import ControlPlane
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.errors import ControlPlaneRefusedError, ControlPlaneUnavailableError
from tests.agent.gateway import scripted_gateway

READS: dict[str, Callable[[AgentApi], Awaitable[Any]]] = {
    "the status of a run": lambda api: agent_calls.run_status(api, "r", deployment="prod"),
    "finished runs": lambda api: agent_calls.finished_runs(api, ["r"], deployment="prod"),
    "existing runs": lambda api: agent_calls.existing_runs(api, ["r"], deployment="prod"),
    "code locations": lambda api: agent_calls.workspace_entries(api, ["prod"], queues=[None]),
    "missing deployments": lambda api: agent_calls.missing_deployments(api, ["prod"]),
}
NO_ANSWERS: dict[str, Any] = {
    "of another call": {"data": {"userCloudAgent": []}},
    "no data": {"data": None},
    "nothing": {},
    "a group without the field": {"data": {"runs": {}}},
    "an error": {"errors": [{"message": "try again"}]},
    "an error of a field": {
        "data": {"runs": None},
        "errors": [{"message": "locked", "locations": [{"line": 1}], "path": ["runs"]}],
    },
}


async def ask(read: Callable[[AgentApi], Awaitable[Any]], content: Any) -> Any:
    """Return what a call that is answered like this returns."""
    with scripted_gateway(lambda _: (200, content)) as gateway:
        settings = ControlPlane(url=gateway.url)
        async with AgentApi(settings, token=lambda: "token", agent_id="agent") as api:
            return await read(api)


@pytest.mark.parametrize("content", NO_ANSWERS.values(), ids=NO_ANSWERS)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_what_is_no_answer_is_asked_again(
    read: Callable[[AgentApi], Awaitable[Any]], content: Any
) -> None:
    """A run is not deleted, and no deployment gone, since an answer does not name it."""
    with pytest.raises(ControlPlaneUnavailableError):
        await ask(read, content)


async def test_null_is_an_answer() -> None:
    """There is no such run."""
    content = {"data": {"runs": {"getRunById": None}}}
    assert await ask(READS["the status of a run"], content) is None


async def test_document_that_is_not_valid_is_a_refusal() -> None:
    """It would not be valid the next time either."""
    content = {"errors": [{"message": "no such field", "locations": [{"line": 1, "column": 2}]}]}
    with pytest.raises(ControlPlaneRefusedError):
        await ask(READS["the status of a run"], content)
