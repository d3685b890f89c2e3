"""Runs with the slurm executor on this machine, each step in its place."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.dagster_hpc.runs import Bench, Run, bench, poll


@dataclass(frozen=True, slots=True)
class Mixed:
    """A run of the job ``mixed``, and where it was."""

    run: Run
    bench: Bench


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    """One run for several tests: a process takes seconds to import Dagster."""
    with bench(tmp_path_factory.mktemp("mixed")) as made:
        yield Mixed(made.run("mixed"), made)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Bench]:
    """Runs without an agent: steps are child processes."""
    with bench(tmp_path) as made:
        yield made


def test_each_step_runs_in_its_place(mixed: Mixed) -> None:
    """In the run worker, beside it, and where a job would be; each once, with its inputs."""
    run, there = mixed.run, mixed.bench
    names = {"here", "beside", "stepped", "alone", "unmarked"}
    assert names <= set(run.steps("STEP_SUCCESS")), run.messages()
    pids = {name: there.words(name) for name in names}
    assert len(set(itertools.chain(*pids.values()))) == len(names)
    (worker,) = {each.pid for each in run.events if each.event_type_value == "PIPELINE_START"}
    assert pids["here"] == [str(worker)]
    assert "a job of its own" in run.messages("alone")
    assert "It runs as process" in run.messages("alone")


def test_a_group_goes_on_after_a_retry(mixed: Mixed) -> None:
    """What had run is left alone, what had not goes with the step that is tried again."""
    assert "third" in mixed.run.steps("STEP_SUCCESS")
    assert len(mixed.bench.words("first")) == 1
    before, again = mixed.bench.words("second_at_second")
    assert before == mixed.bench.words("first")[0]
    assert mixed.bench.words("third") == [again]


def test_bad_ends_are_told_with_their_reason(mixed: Mixed) -> None:
    """What kills a step fails it, or repeats it where that is wanted; exceptions are Dagster's."""
    run = mixed.run
    assert run.status == "FAILURE"
    assert "ended before the step did (state FAILED, exit code 3)" in run.failure("exits")
    assert "the user's own" in run.failure("raises")
    assert set(run.steps("STEP_UP_FOR_RETRY")) == {"killed_once", "second_at_second"}
    assert len(mixed.bench.words("killed_once")) == 2
    assert "killed_once" in run.steps("STEP_SUCCESS")
    assert mixed.bench.words("never") == []


def test_mapped_steps_are_collected(here: Bench) -> None:
    """Each knows its own key, and the collecting step knows them all."""
    run = here.run("fan", max_jobs=2)
    assert run.status == "SUCCESS", run.messages()
    assert len(here.words("mapped")) == 3
    assert here.words("collected", "sum-3")


def test_steps_of_a_group_share_a_process(here: Bench) -> None:
    """It begins when the last step outside of it is done, and the rest goes on after it."""
    run = here.run("group")
    assert run.status == "SUCCESS", run.messages()
    assert here.words("first") == here.words("second") == here.words("third")
    assert run.steps("STEP_WORKER_STARTING") == ["here", "first", "after"]


def test_a_group_that_fills_the_limit_departs_in_parts(here: Bench) -> None:
    """It would wait for a step that cannot start before it."""
    run = here.run("group", max_concurrent=1)
    assert run.status == "SUCCESS", run.messages()
    assert here.words("first") == here.words("second") != here.words("third")
    assert run.steps("STEP_WORKER_STARTING") == ["first", "here", "third", "after"]


def test_groups_do_not_wait_for_each_other(here: Bench) -> None:
    """Each needs a step of the other: one of them departs in parts."""
    run = here.run("groups_across")
    assert run.status == "SUCCESS", run.messages()
    assert len(run.steps("STEP_WORKER_STARTING")) == 3


def test_a_group_in_the_run_worker_is_executed_whole(here: Bench) -> None:
    """Steps of it that are ready together, and those that need them."""
    run = here.run("group_of_two", default="in_process")
    assert run.status == "SUCCESS", run.messages()
    assert set(run.steps("STEP_SUCCESS")) == {"one_first", "other_first", "second"}


def test_a_group_that_dies_fails_the_step_it_was_at(here: Bench) -> None:
    """And no other one."""
    run = here.run("group_dies")
    assert run.status == "FAILURE"
    assert run.steps("STEP_FAILURE") == ["second_dies"]
    assert "exit code 7" in run.failure("second_dies")
    assert here.words("third") == []


def test_a_group_skips_what_has_no_input(here: Bench) -> None:
    """As in any run."""
    run = here.run("group_skips")
    assert run.status == "SUCCESS", run.messages()
    assert {"second", "after"} <= set(run.steps("STEP_SKIPPED"))
    assert here.words("second") == []


def test_what_cannot_be_done_is_told_at_once(here: Bench) -> None:
    """All that is wrong, before a step runs."""
    wrong = here.run("wrong", str(uuid4()))
    assert "step misspelt: Slurm option mem: 'much' is not a value that sbatch takes" in wrong.error
    assert here.words("misspelt") == []
    circle = here.run("circle", str(uuid4()))
    assert "group together: step between is not in it" in circle.error
    assert here.words("first") == []


def test_pools_are_respected(here: Bench) -> None:
    """Two steps of a pool of one are not in progress at once."""
    here.instance.event_log_storage.set_concurrency_slots("narrow", 1)
    run = here.run("pooled")
    assert run.status == "SUCCESS", run.messages()
    spans = [line.split() for line in (here.directory / "spans").read_text().splitlines()]
    (_, end), (beginning, _) = sorted(spans)
    assert end <= beginning


def test_an_interrupt_ends_all_steps(here: Bench) -> None:
    """They can clean up, and nothing is left."""
    worker = here.start("long")
    poll(lambda: here.words("long_job") and here.words("long_process"))
    steps = [psutil.Process(int(here.words(name)[0])) for name in ("long_job", "long_process")]
    worker.send_signal(signal.SIGINT)
    worker.communicate(timeout=60)
    assert here.words("long_job", "cleaned")
    assert not any(step.is_running() for step in steps)
    assert here.of().steps("STEP_SUCCESS") == []


def test_events_that_cannot_be_read_are_waited_for(here: Bench) -> None:
    """The steps go on meanwhile, and nothing is said of them."""
    worker = here.start("long", max_concurrent=2)
    poll(lambda: here.words("long_job") and here.words("long_process"))
    events = Path(here.instance.root_directory, "history", "runs")
    events.rename(events.with_name("away"))
    assert worker.stdout is not None
    assert any("events cannot be read, trying again" in line for line in worker.stdout)
    events.with_name("away").rename(events)
    (here.directory / "go").touch()
    poll(lambda: "long_process" in here.of().steps("STEP_SUCCESS"))
    assert here.of().steps("STEP_FAILURE") == []
    worker.send_signal(signal.SIGINT)
    worker.communicate(timeout=60)


def test_a_killed_run_worker_leaves_no_process_and_resumes(here: Bench) -> None:
    """Its processes end with it; the next run worker starts them again."""
    worker = here.start("long", max_concurrent=1)
    (name,) = poll(lambda: [each for each in ("long_job", "long_process") if here.words(each)])
    step = psutil.Process(int(here.words(name)[0]))
    worker.kill()
    worker.communicate()
    poll(lambda: not step.is_running() or step.status() == psutil.STATUS_ZOMBIE)
    again = here.start("long", resume=True)
    poll(lambda: len(here.words(name)) == 2)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
