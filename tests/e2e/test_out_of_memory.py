"""A run whose job uses more memory than it asked for, on a Slurm that does not let it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpc_agent.demo.stack import Stack, example_location
from tests.cluster import SlurmCluster, own_cluster
from tests.e2e.conftest import choice_of, running_stack
from tests.e2e.test_runs import engine_lines

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(420)]

CODE = """
import dagster as dg

@dg.op
def take_500_megabytes():
    return len(bytearray(500 << 20))

@dg.job(executor_def=dg.in_process_executor)
def hungry_job():
    take_500_megabytes()

defs = dg.Definitions(jobs=[hungry_job])
"""


@pytest.fixture(scope="module")
def strict() -> Iterator[SlurmCluster]:
    """A cluster whose jobs have the memory that they asked for, and no more."""
    with own_cluster(memory_limits=True) as started:
        yield started


@pytest.fixture(scope="module")
def stack(strict: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a code location that is hungry."""
    code = tmp_path_factory.mktemp("hungry")
    (code / "hungry.py").write_text(CODE)
    location = {"code_source": {"module_name": "hungry"}, "working_directory": str(code)}
    settings = {"scheduler": {"poll_seconds": 1, "commands_per_second": 20}}
    with running_stack(choice_of(strict), relay={"bind": "127.0.0.1"}, **settings) as started:
        started.deploy({"example": example_location(), "hungry": location})
        started.wait_loaded("hungry")
        yield started


def test_run_out_of_memory_goes_on_with_more(stack: Stack) -> None:
    """Slurm ends the first job; the second has twice as much, and the same run succeeds."""
    tags = {"dagster-hpc/mem": "400M", "dagster-hpc/on-out-of-memory": "resubmit"}
    run_id = stack.webserver.launch("hungry", "hungry_job", tags=tags)
    assert stack.wait_finished(run_id) == "SUCCESS"
    told = " ".join(engine_lines(stack, run_id))
    assert "OUT_OF_MEMORY; attempt 2 of 3 is submitted with mem 800M (was 400M)" in told


def test_run_out_of_memory_fails_without_a_policy(stack: Stack) -> None:
    """What to do about it is in its log."""
    run_id = stack.webserver.launch("hungry", "hungry_job", tags={"dagster-hpc/mem": "400M"})
    assert stack.wait_finished(run_id) == "FAILURE"
    told = " ".join(str(event.get("message", "")) for event in stack.webserver.events(run_id))
    assert "used more memory than it asked for" in told
