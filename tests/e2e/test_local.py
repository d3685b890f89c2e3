"""Without Slurm: the same path with child processes for jobs, as an ordinary user has it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.demo.cluster import choose_cluster
from hpc_agent.demo.facts import gather
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.errors import HpcAgentError
from tests.e2e.conftest import say, started
from tests.e2e.test_runs import engine_lines, nap, wait_running
from tests.traces.collector import Collector, Seen, collecting

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

_RUN = "dagster.run_id"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """What the traces of the stack go to."""
    with collecting() as listening:
        yield listening


@pytest.fixture(scope="module")
def local_stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    """A stack on the local scheduler, its compute logs kept at home."""
    cluster = choose_cluster("local", tmp_path_factory.mktemp("unused"), say)
    settings = {
        "compute_logs": {"enabled": False},
        "policy": {"max": {"time": "01:00:00"}, "forbid": ["account"]},
        "traces": {"endpoint": collector.url},
    }
    with tempfile.TemporaryDirectory(prefix="hpc-e2e-", ignore_cleanup_errors=True) as path:
        local = Path(path)
        directories = Directories(local=local, shared=local / "shared")
        stack = Stack(cluster, directories, say=say, settings=settings)
        with started(stack, "--traces-endpoint", collector.url):
            yield stack


def test_run_materializes_assets_as_a_process(local_stack: Stack) -> None:
    """A run goes through; compute logs stay where they are when that is asked for."""
    run_id = local_stack.webserver.launch(
        "example", "__ASSET_JOB", tags={"dagster/partition": "2026-01-01"}
    )
    assert local_stack.wait_finished(run_id) == "SUCCESS"
    facts = gather(local_stack, run_id, location="example")
    assert set(facts.assets) == {"raw_readings", "clean_readings", "summary", "daily_extremes"}
    assert all(facts.assets.values())
    assert facts.compute_log_bytes == 0
    stdout = local_stack.run_command(
        *("logs", run_id, "--stream", "stdout"),
        *("--config", str(local_stack.directories.agent_yaml)),
    )
    assert "read 24 hours from" in stdout


def test_run_is_one_trace_from_the_gateway_to_its_end(
    local_stack: Stack, collector: Collector
) -> None:
    """Each part tells what it has seen, and nothing is handed on between them for it."""
    run_id = nap(local_stack, 0)
    assert local_stack.wait_finished(run_id) == "SUCCESS"

    def spans() -> dict[str, Seen] | None:
        found = {s.name: s for s in list(collector.spans) if s.attributes.get(_RUN) == run_id}
        return found if {"request LAUNCH_RUN", "last word"} <= found.keys() else None

    found = wait_for("the trace is not complete", spans, seconds=60)
    request, serve, life = (
        found[name] for name in ("request LAUNCH_RUN", "serve LAUNCH_RUN", "run_worker")
    )
    assert (request.service, serve.service) == ("hpc-agent-gateway", "hpc-agent")
    assert (serve.parent, life.parent) == (request.id, serve.id)
    assert {each.trace for each in found.values()} == {request.trace}
    assert {found[name].parent for name in ("sbatch", "queue", "job", "last word")} == {life.id}
    assert life.attributes["slurm.job_id"] == local_stack.job_of(run_id=run_id)["job_id"]
    page = Path("docs/traces.md").read_text()
    assert all(f"`{name.replace('LAUNCH_RUN', 'API')}`" in page for name in found)
    assert request.began_at <= serve.began_at <= found["job"].began_at <= life.ended_at


def test_termination_reaches_the_process(local_stack: Stack) -> None:
    """Canceled by signal, like in a job."""
    run_id = nap(local_stack, 120)
    wait_running(local_stack, run_id)
    local_stack.webserver.terminate(run_id)
    assert local_stack.wait_finished(run_id, seconds=60) == "CANCELED"
    wait_for(
        "the end of the job is not told",
        lambda: any("CANCELLED as requested" in line for line in engine_lines(local_stack, run_id)),
        seconds=30,
    )


def test_run_that_a_restored_backup_does_not_know_is_adopted(local_stack: Stack) -> None:
    """Its job goes on, and it ends as it would have: the operator finds it, and says so."""
    config = ("--config", str(local_stack.directories.agent_yaml))
    home, backup = local_stack.config.home, local_stack.directories.local / "before.db"
    local_stack.agent.stop()
    shutil.copy(home / "agent.db", backup)
    local_stack.start_agent()
    run_id = nap(local_stack, 40)
    wait_running(local_stack, run_id)
    local_stack.agent.stop()
    for path in home.glob("agent.db*"):  # with the log beside it, where somebody has read it
        path.unlink()
    shutil.copy(backup, home / "agent.db")
    local_stack.start_agent()

    (listed,) = json.loads(local_stack.run_command("adopt", "--json", *config))
    assert (listed["run_id"], listed["why_not"], listed["is_adopted"]) == (run_id, "", False)
    assert "True" in local_stack.run_command("adopt", listed["job_id"], *config)

    assert "takes it over" in " ".join(
        wait_for(
            "the run is not told",
            lambda: [line for line in engine_lines(local_stack, run_id) if "takes it" in line],
            seconds=30,
        )
    )
    assert local_stack.wait_finished(run_id, seconds=90) == "SUCCESS"
    assert "No job in the queue is unknown." in local_stack.run_command("adopt", *config)
    assert local_stack.job_of(run_id=run_id)["job_id"] == listed["job_id"]


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("time", "10:00:00", "policy.max.time"),
        ("account", "someone", "run tags may not set account (policy.forbid)"),
    ],
)
def test_run_against_the_policy_of_the_site_fails_with_the_rules_text(
    local_stack: Stack, option: str, value: str, rule: str
) -> None:
    """The rule is in the run's log, and there is no job."""
    tags = {f"dagster-hpc/{option}": value}
    run_id = local_stack.webserver.launch("example", "sleepy_job", tags=tags)
    assert local_stack.wait_finished(run_id, seconds=60) == "FAILURE"
    told = str(local_stack.webserver.events(run_id)).replace("\\'", "'")
    assert "the site's policy forbids this job" in told
    assert rule in told
    with pytest.raises(HpcAgentError, match="no job"):
        local_stack.job_of(run_id=run_id)
