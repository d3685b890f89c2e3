"""User code does on the cluster what it does at home."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.demo.stack import Stack
from tests.cluster import SlurmCluster
from tests.control_plane.running import poll
from tests.e2e.conftest import choice_of, empty_stack
from tests.e2e.test_runs import wait_running

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]

CODE = Path(__file__).parent / "usercode"
REEXECUTE = """
mutation ($run: String!) { launchRunReexecution(reexecutionParams: {
  parentRunId: $run, strategy: FROM_FAILURE
}) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""


def location(theme: str) -> dict[str, Any]:
    """A python_file that is relative to its working_directory, as in many a project."""
    return {"code_source": {"python_file": f"{theme}.py"}, "working_directory": str(CODE)}


@pytest.fixture(scope="module")
def stack(slurm_cluster_accounting: SlurmCluster) -> Iterator[Stack]:
    """A stack with the locations of this directory."""
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "relay": {"bind": "127.0.0.1"},
        # Not in jobs: some runs take both nodes.
        "code_servers": {"placement": "login"},
        "locations": {
            "storing": {
                "python_logs": {"managed_python_loggers": ["mine"], "python_log_level": "INFO"}
            }
        },
    }
    with empty_stack(choice_of(slurm_cluster_accounting), **settings) as started:
        themes = ("printing", "storing", "steps", "resources")
        started.deploy({theme: location(theme) for theme in themes})
        for theme in themes:
            started.wait_loaded(theme)
        yield started


def step_logs(stack: Stack, run_id: str) -> dict[str, str]:
    """Return the logs of the one process that has printed anything."""
    return max(stack.printed(run_id), key=lambda streams: len(streams["stdout"]))


def messages(stack: Stack, run_id: str) -> list[str]:
    return [event.get("message") or "" for event in stack.webserver.events(run_id)]


def how(**config: Any) -> dict[str, Any]:
    return {"ops": {"prints": {"config": config}}}


ENDS = ("segfault", "exit", "kill", "raise", "")
JOBS = ("printing_in_process", "printing_in_steps")


@pytest.fixture(scope="module")
def ended(stack: Stack) -> dict[tuple[str, str], str]:
    """A run of each job for each end, all launched at once."""
    launch = stack.webserver.launch
    return {
        (job, end): launch("printing", job, config=how(end=end)) for job in JOBS for end in ENDS
    }


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("job", JOBS)
def test_last_words_of_a_step_are_shown(
    stack: Stack, ended: dict[tuple[str, str], str], job: str, end: str
) -> None:
    """Whatever it died of."""
    run_id = ended[job, end]
    assert stack.wait_finished(run_id) == ("FAILURE" if end else "SUCCESS")
    streams = step_logs(stack, run_id)
    assert streams["stdout"].splitlines()[:2] == ["first words", "last words"]
    assert "a complaint" in streams["stderr"]


def test_words_of_a_run_that_was_out_of_memory_are_shown(stack: Stack) -> None:
    run_id = stack.webserver.launch(
        "printing",
        "printing_in_process",
        config=how(end="memory"),
        tags={"dagster-hpc/mem": "700M"},
    )
    assert stack.wait_finished(run_id) == "FAILURE"
    assert "last words" in step_logs(stack, run_id)["stdout"]


@pytest.mark.parametrize("job", ["printing_in_process", "printing_in_steps"])
def test_output_of_60_mib_arrives_whole(stack: Stack, job: str) -> None:
    """The stock client cuts it off at 50 MiB, or loses it."""
    run_id = stack.webserver.launch("printing", job, config=how(megabytes=60))
    assert stack.wait_finished(run_id) == "SUCCESS"
    stack.printed(run_id)
    files = list(stack.directories.control_plane.rglob(f"{run_id}/compute_logs/*.out"))
    sizes = [path.stat().st_size for path in files]
    assert max(sizes) == (60 << 20) + len("first words\nlast words\n")


def test_terminated_run_shows_what_it_printed(stack: Stack) -> None:
    run_id = stack.webserver.launch("printing", "waiting")
    wait_running(stack, run_id)
    poll(lambda: "before the end" in str(stack.webserver.compute_logs(run_id)), "its words", 60)
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id) == "CANCELED"
    assert step_logs(stack, run_id)["stdout"].splitlines() == ["before the end"]


def test_attempts_of_a_step_have_logs_of_their_own(stack: Stack) -> None:
    run_id = stack.webserver.launch("printing", "retried")
    assert stack.wait_finished(run_id) == "SUCCESS"
    texts = sorted(streams["stdout"] for streams in stack.printed(run_id))
    assert [text for text in texts if text] == ["attempt 0\n", "attempt 1\n"]


def test_proxy_variables_of_user_code_cut_nothing_off(stack: Stack) -> None:
    """Traffic to the node's loopback does not depend on them."""
    run_id = stack.webserver.launch("printing", "behind_proxies")
    assert stack.wait_finished(run_id, seconds=90) == "SUCCESS"
    assert {f"event {number}" for number in range(3)} <= set(messages(stack, run_id))
    assert step_logs(stack, run_id)["stdout"] == "printed behind the proxy\n"


def test_run_starts_in_the_working_directory_of_its_location(stack: Stack) -> None:
    """Steps too; and python_file is relative to it."""
    run_id = stack.webserver.launch("printing", "relative")
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)


def test_asset_of_another_run_is_read(stack: Stack) -> None:
    """By the default IO manager, from the file system that all nodes share."""
    for asset in ("upstream", "downstream"):
        run_id = stack.webserver.launch("storing", "__ASSET_JOB", assets=[asset])
        assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    stored = stack.config.artifacts_of("prod", "storing") / "storage" / "downstream"
    assert stored.is_file()
    assert stored.stat().st_mode & 0o077 == 0


def test_run_is_executed_again_from_its_failure(stack: Stack, tmp_path: Path) -> None:
    """What the first run has made is there."""
    marker = stack.directories.shared / "failed-once"
    config = {"ops": {"fails_once": {"config": {"marker": str(marker)}}}}
    first = stack.webserver.launch("storing", "failing_once", config=config)
    assert stack.wait_finished(first) == "FAILURE"
    launched = stack.webserver.query(REEXECUTE, {"run": first})["launchRunReexecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    again = launched["run"]["runId"]
    assert stack.wait_finished(again) == "SUCCESS", messages(stack, again)


def test_managed_loggers_become_events(stack: Stack) -> None:
    """python_logs of agent.yaml, here of one location."""
    run_id = stack.webserver.launch("storing", "python_logs")
    assert stack.wait_finished(run_id) == "SUCCESS"
    told = messages(stack, run_id)
    assert "told by a managed logger" in told
    assert "told by another" not in told


TWO_NODES = {"dagster-hpc/nodes": "2", "dagster-hpc/ntasks": "2"}


def test_steps_of_the_job_have_the_environment_of_user_code(stack: Stack) -> None:
    """srun within an op: nothing of how the job itself was submitted reaches it."""
    run_id = stack.webserver.launch("steps", "job_steps", tags=TWO_NODES)
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    told = "\n".join(messages(stack, run_id))
    for node in ("c1", "c2"):
        assert re.search(rf"^{node} yes /\S+$", told, re.MULTILINE), told
    assert "the file has ['second']" in told


@pytest.mark.skipif(
    not (shutil.which("mpirun") and Path("/usr/lib/python3/dist-packages/mpi4py").exists()),
    reason="no Open MPI here: install openmpi-bin and python3-mpi4py",
)
def test_mpi_program_runs_on_all_nodes_of_a_run(stack: Stack) -> None:
    """Its launcher finds the allocation, and its own programs in PATH."""
    run_id = stack.webserver.launch("steps", "mpi_program", tags=TWO_NODES)
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    told = "\n".join(messages(stack, run_id))
    assert "I am process 0 of 2" in told
    assert "I am process 1 of 2" in told


def options_of(stack: Stack, run_id: str) -> dict[str, tuple[str, str]]:
    """Return the Slurm options of a run, each with its source, as `options explain` shows them."""
    config = str(stack.directories.agent_yaml)
    text = stack.run_command("options", "explain", run_id, "--config", config, "--json")
    (explained,) = json.loads(text)
    return {row["option"]: (row["value"], row["source"]) for row in explained["settings"]}


@pytest.mark.parametrize(
    ("assets", "tags", "expected"),
    [
        (["small"], {}, {"mem": ("300M", "step small"), "time": ("0:10:00", "step small")}),
        (
            ["small", "large"],
            {},
            {"mem": ("700M", "step large"), "time": ("0:30:00", "steps large, small")},
        ),
        (
            ["small", "large"],
            {"dagster-hpc/mem": "900M"},
            {"mem": ("900M", "run tags"), "time": ("0:30:00", "steps large, small")},
        ),
    ],
)
def test_job_covers_what_the_selected_assets_ask_for(
    stack: Stack,
    assets: list[str],
    tags: dict[str, str],
    expected: dict[str, tuple[str, str]],
) -> None:
    """Without a step executor; tags of the run win."""
    run_id = stack.webserver.launch("resources", "__ASSET_JOB", assets=assets, tags=tags)
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    found = options_of(stack, run_id)
    assert {option: found[option] for option in expected} == expected


def test_job_covers_what_an_op_asks_for(stack: Stack) -> None:
    run_id = stack.webserver.launch("resources", "busy_job")
    assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    assert options_of(stack, run_id)["cpus-per-task"] == ("2", "step busy")


def test_assets_that_contradict_each_other_are_both_named(stack: Stack) -> None:
    """Nothing is submitted; the run says why."""
    run_id = stack.webserver.launch("resources", "__ASSET_JOB", assets=["debugged", "elsewhere"])
    assert stack.wait_finished(run_id) == "FAILURE"
    told = json.dumps(stack.webserver.events(run_id))
    assert "step debugged asks for partition debug and step elsewhere for long" in told


OBSERVED = """
query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  staleStatus
  assetMaterializations { runId }
  assetObservations { runId partition description metadataEntries {
    label ... on FloatMetadataEntry { floatValue } ... on IntMetadataEntry { intValue }
  } }
} } }
"""


def node_of(stack: Stack, asset: str) -> dict[str, Any]:
    """Return what the asset's page is made of."""
    node: dict[str, Any] = stack.webserver.query(OBSERVED, {"key": {"path": [asset]}})
    return dict(node["assetNodeOrError"])


def test_assets_show_once_what_the_job_of_their_run_used(stack: Stack) -> None:
    """As numbers, which the UI plots; nothing becomes stale, and nothing is materialized twice."""
    runs = [
        stack.webserver.launch("resources", "__ASSET_JOB", assets=["small", "large"]),
        stack.webserver.launch(
            "resources", "__ASSET_JOB", assets=["by_region"], tags={"dagster/partition": "north"}
        ),
    ]
    for run_id in runs:
        assert stack.wait_finished(run_id) == "SUCCESS", messages(stack, run_id)
    for asset, run_id in (("small", runs[0]), ("large", runs[0]), ("by_region", runs[1])):

        def own(asset: str = asset, run_id: str = run_id) -> list[dict[str, Any]]:
            seen = node_of(stack, asset)["assetObservations"]
            return [each for each in seen if each["runId"] == run_id]

        (told,) = poll(own, f"what was used, at {asset}", 150)
        figures = {
            entry["label"]: entry.get("floatValue", entry.get("intValue"))
            for entry in told["metadataEntries"]
        }
        assert figures["dagster-hpc/node_hours"] > 0
        assert figures["dagster-hpc/billing_hours"] > 0
        assert figures["dagster-hpc/max_rss_mb"] > 10
        assert 0 < figures["dagster-hpc/cpu_efficiency"] < 200
        assert "dagster-hpc/energy_joules" not in figures
        assert told["partition"] == ("north" if asset == "by_region" else None)
        assert "executed all of its run" in told["description"]
    large = node_of(stack, "large")
    assert large["staleStatus"] == "FRESH"
    assert [each["runId"] for each in large["assetMaterializations"]].count(runs[0]) == 1


DELETE = """
mutation ($run: String!) { deletePipelineRun(runId: $run) { __typename } }
"""


def test_job_of_a_deleted_run_is_ended(stack: Stack) -> None:
    """Nobody could end it any more but in Slurm; jobs of other runs go on."""
    other = stack.webserver.launch("printing", "waiting")
    run_id = stack.webserver.launch("printing", "waiting")
    for each in (other, run_id):
        wait_running(stack, each)
    deleted = stack.webserver.query(DELETE, {"run": run_id})["deletePipelineRun"]
    assert deleted["__typename"] == "DeletePipelineRunSuccess"
    poll(lambda: stack.job_of(run_id=run_id)["ended_at"], "the job's end", 120)
    assert stack.webserver.status(other) == "STARTED"
    stack.webserver.terminate(other)
    assert stack.wait_finished(other) == "CANCELED"
