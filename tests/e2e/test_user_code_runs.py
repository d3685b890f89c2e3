"""What ops do to their processes, their surroundings and their log (docs/user-code.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.demo.stack import Stack
from tests.cluster import SlurmCluster
from tests.control_plane.running import poll
from tests.e2e.conftest import choice_of, empty_stack
from tests.e2e.test_user_code import location, messages, step_logs

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(400)]

LONG_NAME = "a_name_that_is_long_" + 200 * "x"
STRICT = {"environment": {"variables": {"LC_ALL": "C", "PYTHONWARNINGS": "error"}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is launched, and what one op of it is configured with."""

    location: str
    job: str
    assets: list[str] | None = None
    config: dict[str, Any] = field(default_factory=dict)


def ops(op: str, **config: Any) -> dict[str, Any]:
    return {"ops": {op: {"config": config}}}


LAUNCHES = [
    # What takes longest comes first: all run at once.
    Launch(location="processes", job="endless_thread"),
    Launch(location="processes", job="ignoring_signals"),
    Launch(location="processes", job="pools"),
    Launch(location="processes", job="daemonizing"),
    Launch(location="telling", job="fanning_out"),
    Launch(location="telling", job="hooked"),
    Launch(location="telling", job=LONG_NAME),
    Launch(location="telling", job="failing_at_length"),
    Launch(location="telling", job="telling_much", config=ops("tells_much", lines=300)),
    Launch(location="telling", job="__ASSET_JOB", assets=["checked", "behind"]),
    Launch(location="processes", job="__ASSET_JOB", assets=["piped"]),
    Launch(location="processes", job="closing"),
    Launch(location="processes", job="exiting"),
    Launch(location="processes", job="submitting"),
    Launch(location="processes", job="asking_at_the_terminal"),
    Launch(location="surroundings", job="changing_everything"),
    Launch(location="surroundings", job="nested"),
    Launch(location="strict", job="in_its_locale"),
]


class Runs:
    """All runs of this file, started at once, and each looked at by a test of its own."""

    def __init__(self, stack: Stack) -> None:
        """Launch all of them."""
        self.stack = stack
        self.pid_file = stack.directories.shared / "daemon.pid"
        self.marker = stack.directories.shared / "made-by-a-job-of-its-own"
        files = {
            "daemonizing": ops("starts_a_daemon", pid_file=str(self.pid_file)),
            "submitting": ops("submits", marker=str(self.marker)),
        }
        self._ids = {
            (each.location, each.job): stack.webserver.launch(
                each.location,
                each.job,
                assets=each.assets,
                config=files.get(each.job, each.config),
            )
            for each in LAUNCHES
        }

    def id_of(self, location: str, job: str) -> str:
        return self._ids[location, job]

    def end_of(self, location: str, job: str) -> tuple[str, list[str]]:
        """Return how a run has ended, and its log."""
        run_id = self.id_of(location, job)
        return self.stack.wait_finished(run_id), messages(self.stack, run_id)

    def failure_of(self, location: str, job: str) -> str:
        """Return what the run's log says of its error."""
        run_id = self.id_of(location, job)
        assert self.stack.wait_finished(run_id) == "FAILURE"
        return json.dumps(self.stack.webserver.events(run_id))


@pytest.fixture(scope="module")
def runs(slurm_cluster: SlurmCluster) -> Iterator[Runs]:
    """A stack with the locations of this file, and the runs of all its tests under way."""
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "relay": {"bind": "127.0.0.1"},
        "runs": {"grace_seconds": 5},
        "code_servers": {"placement": "login"},
        "locations": {"strict": STRICT},
    }
    with empty_stack(choice_of(slurm_cluster), **settings) as stack:
        themes = {"processes": "processes", "surroundings": "surroundings", "telling": "telling"}
        themes["strict"] = "surroundings"
        stack.deploy({name: location(theme) for name, theme in themes.items()})
        for name in themes:
            stack.wait_loaded(name)
        yield Runs(stack)


def test_op_forks_and_has_pools_of_processes(runs: Runs) -> None:
    """By fork and spawn, and as concurrent.futures."""
    status, told = runs.end_of("processes", "pools")
    assert status == "SUCCESS", told
    assert {"fork 3", "fork 14", "spawn 14", "futures 14"} <= set(told)


def test_daemon_is_ended_with_its_job(runs: Runs) -> None:
    """Also where Slurm does not track processes by cgroup, as here."""
    status, told = runs.end_of("processes", "daemonizing")
    assert status == "SUCCESS", told
    runs.stack.printed(runs.id_of("processes", "daemonizing"))
    daemon = Path("/proc", runs.pid_file.read_text())
    poll(lambda: not daemon.exists(), "the daemon's end", 10)


def test_op_that_closes_all_descriptors_fails(runs: Runs) -> None:
    """Its events still arrive; what Dagster had open is gone."""
    assert "Bad file descriptor" in runs.failure_of("processes", "closing")
    assert "told after all descriptors were closed" in runs.end_of("processes", "closing")[1]


def test_exit_of_an_op_is_a_failure(runs: Runs) -> None:
    """With the code 0 too."""
    assert "SystemExit: 0" in runs.failure_of("processes", "exiting")


def test_op_that_ignores_signals_is_ended(runs: Runs) -> None:
    """After the run's grace."""
    stack, run_id = runs.stack, runs.id_of("processes", "ignoring_signals")
    poll(lambda: "ignoring" in str(stack.webserver.compute_logs(run_id)), "its words", 120)
    stack.webserver.terminate(run_id)
    assert stack.wait_finished(run_id) == "CANCELED"


def test_thread_without_an_end_keeps_no_job(runs: Runs) -> None:
    """The run has succeeded, and its job is ended two graces later."""
    status, told = runs.end_of("processes", "endless_thread")
    assert status == "SUCCESS", told
    run_id = runs.id_of("processes", "endless_thread")
    runs.stack.printed(run_id, seconds=60)
    assert runs.stack.webserver.status(run_id) == "SUCCESS"


def test_op_submits_a_job_of_its_own(runs: Runs) -> None:
    """It runs, whatever becomes of the run's own job."""
    status, told = runs.end_of("processes", "submitting")
    assert status == "SUCCESS", told
    poll(runs.marker.exists, "what the job makes", 120)


def test_op_cannot_ask_at_the_terminal(runs: Runs) -> None:
    """There is none, and nothing hangs."""
    assert "Error occurred while executing op" in runs.failure_of(
        "processes", "asking_at_the_terminal"
    )


def test_pipes_tell_of_another_program(runs: Runs) -> None:
    """Messages, metadata and what it prints."""
    status, told = runs.end_of("processes", "__ASSET_JOB")
    assert status == "SUCCESS", told
    assert "told through pipes" in told
    run_id = runs.id_of("processes", "__ASSET_JOB")
    (made,) = runs.stack.webserver.run(run_id)["assetMaterializations"]
    assert {"label": "rows", "intValue": 7, "__typename": "IntMetadataEntry"} in made[
        "metadataEntries"
    ]
    assert step_logs(runs.stack, run_id)["stdout"] == "printed by the process\n"


@pytest.mark.parametrize("change", ["directory", "environment", "loggers", "warned", "streams"])
def test_change_of_surroundings_cuts_nothing_off(runs: Runs, change: str) -> None:
    """Events arrive, and values are handed on, after each change and all those before."""
    status, told = runs.end_of("surroundings", "changing_everything")
    assert f"told after a change of {change}" in told
    assert status == "SUCCESS", told


def test_op_gets_the_instance(runs: Runs) -> None:
    """By DAGSTER_HOME, and reports assets without a run."""
    told = runs.end_of("surroundings", "nested")[1]
    assert "the instance knows nested" in told
    assert "reported without a run: True" in told


def test_nested_runs_stay_in_memory(runs: Runs) -> None:
    """A job's token makes no runs in the control plane, and says so."""
    assert "mutation runs.addRun is refused to job" in failures(
        runs.stack, runs.id_of("surroundings", "nested")
    )
    assert "nested in memory: True" in messages(runs.stack, runs.id_of("surroundings", "nested"))


CHAIN = """
query ($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
  ... on ExecutionStepFailureEvent { error { message errorChain { error { message } } } }
} } } }
"""


def failures(stack: Stack, run_id: str) -> str:
    """Return the errors of failed steps with their causes."""
    assert stack.wait_finished(run_id) == "FAILURE"
    return json.dumps(stack.webserver.query(CHAIN, {"run": run_id}))


def test_locale_and_warnings_of_the_location_hold(runs: Runs) -> None:
    """LC_ALL=C is UTF-8 in Python 3.7 and later; PYTHONWARNINGS=error breaks nothing of ours."""
    status, told = runs.end_of("strict", "in_its_locale")
    assert status == "SUCCESS", told
    assert 'locale: {"encoding": "utf-8", "stdout": "utf-8"}' in told
    assert step_logs(runs.stack, runs.id_of("strict", "in_its_locale"))["stdout"] == "grüße 🌧\n"


def test_strange_characters_arrive(runs: Runs) -> None:
    """In messages, asset keys, tags and output; half a character is U+FFFD."""
    status, told = runs.end_of("telling", LONG_NAME)
    assert status == "SUCCESS", told
    assert "grüße 🌧 \x00 \x07 \x1b[31mred\x1b[0m \u202e \ufffd tail" in told
    run_id = runs.id_of("telling", LONG_NAME)
    run = runs.stack.webserver.run(run_id)
    assert {"key": "wëtter", "value": "🌧 regen"} in run["tags"]
    (made,) = run["assetMaterializations"]
    assert made["assetKey"]["path"] == ["wëtter 🌧", 'a "b" \\ /c']
    assert step_logs(runs.stack, run_id)["stdout"] == "grüße 🌧 \x07\x1b[31mred\n"


def test_long_exception_that_does_not_pickle_is_shown(runs: Runs) -> None:
    """Dagster cuts it off at 500,000 characters; what is printed has the end too."""
    run_id = runs.id_of("telling", "failing_at_length")
    assert 499_000 * "x" + " (TRUNCATED)" in failures(runs.stack, run_id)
    printed = [streams["stderr"] for streams in runs.stack.printed(run_id)]
    assert any("the end of a long message" in text for text in printed)


def test_each_line_of_a_long_log_arrives(runs: Runs) -> None:
    """Once, and in order."""
    status, told = runs.end_of("telling", "telling_much")
    assert status == "SUCCESS"
    numbers = [int(line.split()[1]) for line in told if re.fullmatch(r"line \d+", line)]
    assert numbers == list(range(300))


def test_dynamic_outputs_are_mapped_and_collected(runs: Runs) -> None:
    """A process for each."""
    status, told = runs.end_of("telling", "fanning_out")
    assert status == "SUCCESS", told
    assert "the sum is 132" in told


def test_hooks_are_called(runs: Runs) -> None:
    """With the op's exception."""
    status, told = runs.end_of("telling", "hooked")
    assert status == "FAILURE"
    assert "hook: succeeds succeeded" in told
    assert "hook: fails failed with as asked" in told


def test_blocking_check_blocks(runs: Runs) -> None:
    """What is behind it is not made."""
    status, told = runs.end_of("telling", "__ASSET_JOB")
    assert status == "FAILURE"
    assert any("Dependencies for step behind failed" in line for line in told), told
