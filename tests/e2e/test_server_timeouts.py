"""Two clocks for a code server that does not come up: in the queue, and from its job's start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack, example_location
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.store.selection import EVERYTHING
from tests.e2e.conftest import running_stack

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def stack(on_slurm: ClusterChoice) -> Iterator[Stack]:
    """A stack with short clocks, and locations whose jobs wait or do not get ready."""
    settings: dict[str, Any] = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "code_servers": {"queue_timeout_seconds": 15, "startup_timeout_seconds": 30},
        "locations": {
            "waiting": {"code_server_options": {"begin": "now+1hour"}},
            "slow": {"environment": {"setup": ["sleep 600"]}},
        },
    }
    with running_stack(on_slurm, relay={"bind": "127.0.0.1"}, **settings) as started:
        yield started


def error_of(stack: Stack, location: str, words: str) -> str:
    """Deploy a location and return the error that the webserver shows once it holds these words."""
    stack.deploy({location: example_location()})

    def shown() -> str | None:
        error = stack.webserver.locations().get(location)
        message = str(error["message"]) if isinstance(error, dict) else ""
        return message if words in message else None

    return wait_for(
        f"no error of {location} with {words!r}", shown, seconds=150, alive=[stack.agent]
    )


def job_states(stack: Stack, location: str) -> list[str]:
    """Return the phases of a location's code server jobs, newest first."""
    rows = read_jobs(stack.config, EVERYTHING)
    return [row["phase"] for row in rows if row["location"] == location]


def test_time_in_the_queue_has_its_own_clock(stack: Stack) -> None:
    """The message has Slurm's reason, and the job does not stay in the queue."""
    message = error_of(stack, "waiting", "waited 15 s in the queue")
    assert "PENDING (BeginTime: its begin time is not reached" in message
    wait_for(
        "the job stays in the queue",
        lambda: job_states(stack, "waiting")[-1] == "ended",
        seconds=60,
        alive=[stack.agent],
    )


def test_time_to_the_first_answer_has_another(stack: Stack) -> None:
    """It counts from the job's start; the message names job and node."""
    message = error_of(stack, "slow", "did not answer within 30 s")
    assert "RUNNING on" in message


def test_server_that_comes_up_in_time_knows_neither(stack: Stack) -> None:
    """Its neighbours' troubles are not its own."""
    assert stack.webserver.locations()["example"] is None
    assert job_states(stack, "example")[0] == "running"
