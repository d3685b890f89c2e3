"""Runs in a warm pool, on a real Slurm: started at once, and given all that a job gives them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpc_agent.demo.stack import Stack
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.inspection.pools import read_pool
from hpc_agent.store.selection import EVERYTHING
from tests.cluster import SlurmCluster
from tests.control_plane.running import poll
from tests.e2e.conftest import choice_of, empty_stack
from tests.e2e.test_user_code import location, messages
from tests.environments import environment_with_ours
from tests.metrics.scrape import scraped

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(400)]
POOL = "short"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with ours, and its archive that nodes unpack."""
    root = tmp_path_factory.mktemp("environments")
    prefix, archive, disk = root / "shared", root / "packed.tar", root / "disk"
    disk.mkdir()
    environment_with_ours(prefix)
    subprocess.run(["tar", "-C", root, "-cf", archive, prefix.name], check=True)
    return {"venv": str(prefix), "packed": str(archive), "unpack_directory": str(disk)}


@pytest.fixture(scope="module")
def stack(slurm_cluster: SlurmCluster, packed: dict[str, str]) -> Iterator[Stack]:
    """A stack whose one location has a pool of two slots, up from the start."""
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "relay": {"bind": "127.0.0.1"},
        "runs": {"grace_seconds": 5, "retries": {"on_node_fail": "resubmit"}},
        "code_servers": {"placement": "login"},
        "pools": {
            POOL: {
                "options": {"cpus-per-task": 2, "time": "20", "nodes": "1", "mem": "900M"},
                "slot": {"cpus": 1},
                "max": 1,
                "fallback_seconds": 90,
            },
            "wide": {
                "options": {"cpus-per-task": 1, "nodes": "2", "mem": "500M", "time": "20"},
                "slot": {"cpus": 1},
                "idle_seconds": 5,
            },
        },
        "locations": {
            "pooled": {"pool": POOL, "environment": packed},
            "spread": {"pool": "wide", "warm": "spare"},
        },
    }
    with empty_stack(choice_of(slurm_cluster), **settings) as started:
        started.deploy({"pooled": location("pooled"), "spread": location("pooled")})
        started.wait_loaded("pooled")
        started.wait_loaded("spread")
        yield started


def pool_of(stack: Stack, name: str = POOL) -> dict[str, Any]:
    return read_pool(stack.config, name, decisions=50)


def warm(stack: Stack) -> dict[str, Any]:
    """Wait until the pool has a template that is ready; return its allocation."""

    def look() -> dict[str, Any] | None:
        for allocation in pool_of(stack)["allocations"]:
            for each in allocation["supervisors"]:
                if any(t["state"] in {"ready", "spares"} for t in each["templates"].values()):
                    return dict(allocation)
        return None

    return poll(look, "the pool is warm", 90)


def templates_of(allocation: dict[str, Any]) -> list[tuple[str, int]]:
    """Return id and process of each template on the first node."""
    told = allocation["supervisors"][0]["templates"]
    return [(name, template["pid"]) for name, template in told.items()]


def free_slots(stack: Stack) -> float:
    """Return what the metrics say of the pool."""
    shown = scraped(str(stack.config.metrics.listen))
    return shown.value("hpc_agent_pool_slots", pool=POOL, state="free")


def supervisor_of(key: str) -> psutil.Process:
    """Return the first process of an allocation; what it has forked has the same command line."""
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word.endswith(f"/jobs/{key}") for word in process.info["cmdline"] or [])
    ]
    return min(found, key=lambda process: (process.create_time(), process.pid))


def row_of(stack: Stack, run_id: str) -> dict[str, Any]:
    (row,) = [row for row in read_jobs(stack.config, EVERYTHING) if row["run_id"] == run_id]
    return row


def test_a_run_brings_the_pool_up_and_the_next_is_quick(
    stack: Stack, packed: dict[str, str]
) -> None:
    """In the allocation's job; what it prints and logs is where it always is."""
    first = stack.webserver.launch("pooled", "quick")
    assert stack.wait_finished(first) == "SUCCESS", messages(stack, first)
    allocation = warm(stack)
    began = time.monotonic()
    second = stack.webserver.launch("pooled", "quick")
    assert stack.wait_finished(second) == "SUCCESS", messages(stack, second)
    print(f"warm run: {time.monotonic() - began:.2f} s")
    poll(lambda: free_slots(stack) == 2, "its slots are free again", 60)
    told = "\n".join(messages(stack, second))
    assert f"in job {allocation['job_id']} session True" in told
    assert f"python of {packed['unpack_directory']}/" in told
    assert (
        len(
            {
                re.findall(r"random (\S+)", "\n".join(messages(stack, each)))[0]
                for each in (first, second)
            }
        )
        == 2
    )
    logs = stack.webserver.compute_logs(second)
    assert "printed in a pool" in json.dumps(logs)
    assert row_of(stack, second)["phase"] == "ended"


def test_what_asks_for_memory_gets_a_job_of_its_own(stack: Stack, packed: dict[str, str]) -> None:
    """And nothing of the pool; the environment that its node has unpacked it has like the pool."""
    run_id = stack.webserver.launch("pooled", "sized")
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    assert f"python of {packed['unpack_directory']}/" in "\n".join(messages(stack, run_id))
    assert row_of(stack, run_id)["job_id"] not in {
        each["job_id"] for each in pool_of(stack)["allocations"]
    }


def test_a_step_with_a_job_of_its_own_lives_in_the_pool_too(stack: Stack) -> None:
    """Beside its run, in the other slot, and forked from the same template as other jobs' runs."""
    before = templates_of(warm(stack))
    run_id = stack.webserver.launch("pooled", "stepped")
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    (allocation,) = pool_of(stack)["allocations"]
    rows = rows_of(stack, run_id)
    assert [row["kind"] for row in rows] == ["run_worker", "step"]
    assert {row["job_id"] for row in rows} == {allocation["job_id"]}
    assert templates_of(allocation) == before


def test_ends_are_told_as_those_of_jobs(stack: Stack) -> None:
    """A crash, and an exception; neighbours are not concerned."""
    dying = stack.webserver.launch("pooled", "dying")
    failing = stack.webserver.launch("pooled", "failing")
    assert stack.wait_finished(failing) == "FAILURE"
    assert stack.wait_finished(dying) == "FAILURE"
    kinds = [each["__typename"] for each in stack.webserver.events(failing)]
    assert "ExecutionStepFailureEvent" in kinds
    told = json.dumps(stack.webserver.events(dying))
    assert "signal 9" in told, told[-3000:]
    after = stack.webserver.launch("pooled", "quick")
    assert stack.wait_finished(after) == "SUCCESS"


def test_termination_ends_one_run_alone(stack: Stack, tmp_path: Path) -> None:
    """The allocation goes on."""
    run_id = stack.webserver.launch(
        "pooled", "waiting", config={"ops": {"waits": {"config": {"path": str(tmp_path / "a")}}}}
    )
    poll(lambda: stack.webserver.status(run_id) == "STARTED", "it runs", 60)
    before = {each["key"] for each in pool_of(stack)["allocations"]}
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id, seconds=60) == "CANCELED"
    assert {each["key"] for each in pool_of(stack)["allocations"]} == before


def test_nothing_is_lost_when_agent_and_template_are_killed(stack: Stack, tmp_path: Path) -> None:
    """A run that goes on ends well, and the pool is warm again."""
    run_id = stack.webserver.launch(
        "pooled", "waiting", config={"ops": {"waits": {"config": {"path": str(tmp_path / "b")}}}}
    )
    poll(lambda: stack.webserver.status(run_id) == "STARTED", "it runs", 60)
    (supervisor,) = warm(stack)["supervisors"]
    (template,) = supervisor["templates"].values()
    psutil.Process(template["pid"]).kill()
    stack.agent.kill()
    stack.start_agent()
    (tmp_path / "b").touch()
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    warm(stack)
    after = stack.webserver.launch("pooled", "quick")
    assert stack.wait_finished(after) == "SUCCESS"


def test_an_allocation_of_two_nodes_has_slots_on_both(stack: Stack, tmp_path: Path) -> None:
    """A supervisor on each; when nothing lives in it any more, it goes."""
    config = {"ops": {"waits": {"config": {"path": str(tmp_path / "d")}}}}
    both = [stack.webserver.launch("spread", "waiting", config=config) for _ in range(2)]
    for run_id in both:
        poll(lambda each=run_id: stack.webserver.status(each) == "STARTED", "it runs", 60)  # type: ignore[misc]
    (allocation,) = pool_of(stack, "wide")["allocations"]
    assert [each["slots"] for each in allocation["supervisors"]] == [1, 1]
    assert {row_of(stack, each)["job_id"] for each in both} == {allocation["job_id"]}
    (tmp_path / "d").touch()
    assert {stack.wait_finished(each) for each in both} == {"SUCCESS"}
    poll(lambda: not pool_of(stack, "wide")["allocations"], "it is idle and ends", 60)


def test_a_lost_allocation_takes_its_run_to_another_attempt(stack: Stack, tmp_path: Path) -> None:
    """The supervisor is killed, and with it all that it has: the run goes on."""
    run_id = stack.webserver.launch(
        "pooled", "waiting", config={"ops": {"waits": {"config": {"path": str(tmp_path / "c")}}}}
    )
    poll(lambda: stack.webserver.status(run_id) == "STARTED", "it runs", 60)
    supervisor_of(pool_of(stack)["allocations"][-1]["key"]).kill()
    poll(lambda: len(rows_of(stack, run_id)) == 2, "another attempt", 90)
    (tmp_path / "c").touch()
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    poll(lambda: rows_of(stack, run_id)[-1]["phase"] == "ended", "its second attempt ends", 30)
    first, second = rows_of(stack, run_id)
    assert (first["state"], second["state"]) == ("NODE_FAIL", "COMPLETED")
    assert first["job_id"] != second["job_id"]


def rows_of(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    """Return the attempts of a run, the first one first."""
    rows = [row for row in read_jobs(stack.config, EVERYTHING) if row["run_id"] == run_id]
    return sorted(rows, key=lambda row: float(row["created_at"]))
