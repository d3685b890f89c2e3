"""Calls of user code that kill or keep its code server are told as what they are."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from hpc_agent.demo.stack import Stack
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.store.selection import EVERYTHING
from tests.cluster import SlurmCluster
from tests.control_plane.running import poll
from tests.e2e.conftest import choice_of, empty_stack
from tests.e2e.test_user_code import location

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]

DRY_RUN = """
mutation ($selector: SensorSelector!) { sensorDryRun(selectorData: $selector, cursor: null) {
  __typename
  ... on PythonError { message }
  ... on DryRunInstigationTick {
    evaluationResult { skipReason error { message stack } }
  }
} }
"""


@pytest.fixture(scope="module")
def stack(slurm_cluster: SlurmCluster) -> Iterator[Stack]:
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "relay": {"bind": "127.0.0.1"},
        "code_servers": {"options": {"time": "00:30:00"}},
    }
    with empty_stack(choice_of(slurm_cluster), **settings) as started:
        started.deploy({"asking": location("asking")})
        started.wait_loaded("asking")
        yield started


def evaluate(stack: Stack, sensor: str) -> dict[str, str]:
    """Press "test sensor" and return what the UI shows."""
    selector = {
        "repositoryLocationName": "asking",
        "repositoryName": "__repository__",
        "sensorName": sensor,
    }
    answer = stack.webserver.query(DRY_RUN, {"selector": selector})["sensorDryRun"]
    result = answer.get("evaluationResult") or {}
    error = result.get("error") or {"message": answer.get("message") or ""}
    return {"skip": result.get("skipReason") or "", "error": error["message"]}


def servers(stack: Stack) -> int:
    """Return how many code servers the location has had."""
    rows = read_jobs(stack.config, EVERYTHING)
    return sum(row["location"] == "asking" and row["kind"] == "code_server" for row in rows)


@pytest.mark.parametrize(
    ("sensor", "words"), [("segfaults", "signal 11"), ("exits", "exit code 7")]
)
def test_call_that_kills_its_server_is_told_at_once(stack: Stack, sensor: str, words: str) -> None:
    """And not made again: one server has died of it, and its successor serves others."""
    stack.wait_loaded("asking")
    assert evaluate(stack, "answers")["skip"] == "as it should"
    before, began = servers(stack), time.monotonic()
    told = evaluate(stack, sensor)["error"]
    assert time.monotonic() - began < 40
    assert "The code server of asking died before it had answered: job " in told
    assert words in told
    assert evaluate(stack, "answers")["skip"] == "as it should"
    assert servers(stack) == before + 1


def test_call_that_takes_too_long_says_so(stack: Stack) -> None:
    """With the seconds, and the name of the limit; the server goes on with others."""
    told = evaluate(stack, "hangs")["error"]
    assert "user code did not answer within 57 s" in told
    assert "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS" in told
    assert evaluate(stack, "answers")["skip"] == "as it should"


def test_server_that_cannot_start_says_what_is_missing(stack: Stack) -> None:
    """In the UI and in the agent's log, with the path."""
    stack.deploy({"nowhere": location("asking") | {"working_directory": "/no/such/directory"}})

    def shown() -> str:
        error = stack.webserver.locations().get("nowhere") or {}
        message = str(error.get("message"))
        return message if "exit code 127" in message else ""

    words = "its working directory /no/such/directory is not there"
    assert words in poll(shown, "an error of the location", 120)
    assert words in (stack.directories.logs / "agent.log").read_text()
