"""A command goes on when the process of its op is killed, and is found again by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._grpc.types import ExecuteStepArgs
from dagster_hpc.jobs import JobName, Phase

from tests.dagster_hpc.agent_server import TOKEN, FakeAgent, served
from tests.dagster_hpc.events import checks, materializations, messages

COMMAND = JobName("made.command-1")
CODE = Path(__file__).with_name("reattached.py")


@dataclass
class Step:
    """A step of a run, whose process may be started more than once."""

    instance: dg.DagsterInstance
    run_id: str
    argv: list[str]
    environment: dict[str, str]
    stages: Path
    agent: FakeAgent

    @contextmanager
    def process(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start the process; kill what is left of it in the end."""
        process = subprocess.Popen(self.argv, env={**os.environ, **self.environment})
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def go_on(self, stage: str) -> None:
        (self.stages / stage).touch()

    def said(self) -> Counter[str]:
        return Counter(messages(self.instance, self.run_id))

    def made(self) -> list[str]:
        return [asset for asset, _ in materializations(self.instance, self.run_id)]


@pytest.fixture
def step(tmp_path: Path) -> Iterator[Step]:
    """A step of a run of the user code, with a server in the place of the agent."""
    home, stages = tmp_path / "home", tmp_path / "stages"
    home.mkdir()
    stages.mkdir()
    repository = ReconstructableRepository.for_file(str(CODE), "defs")
    job = ReconstructableJob(repository, "__ASSET_JOB")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        origin = job.get_python_origin()
        run = instance.create_run_for_job(job.get_definition(), job_code_origin=origin)
        arguments = ExecuteStepArgs(
            job_origin=origin,
            run_id=run.run_id,
            step_keys_to_execute=["made"],
            instance_ref=instance.get_ref(),
        )
        agent = FakeAgent(run.run_id)
        with served(agent) as url:
            environment = {
                "HPC_AGENT_API_URL": url,
                "HPC_AGENT_JOB_TOKEN": TOKEN,
                "STAGES": str(stages),
            }
            argv = [sys.executable, "-m", "dagster", *arguments.get_command_args()[1:]]
            yield Step(instance, run.run_id, argv, environment, stages, agent)


def wait_until(
    is_so: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 60
) -> None:
    """Wait for it while a process goes on."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)


def is_over(step: Step) -> bool:
    """Whether the step has succeeded; a failure is one of the test."""
    kinds = {record.dagster_event_type for record in step.instance.all_logs(step.run_id)}
    assert dg.DagsterEventType.STEP_FAILURE not in kinds
    return dg.DagsterEventType.STEP_SUCCESS in kinds


@pytest.mark.parametrize("killed_at", ["before 7", "made first"])
def test_nothing_is_lost_or_doubled(
    step: Step, killed_at: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever the process is killed: each message is in the event log once.

    The log of the last process has all that was printed.
    """
    reached: dict[str, Callable[[], bool]] = {
        "made first": lambda: "first" in step.made(),
    }
    with step.process() as process:
        wait_until(reached.get(killed_at, lambda: step.said()[killed_at] > 0), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    capfd.readouterr()
    step.go_on("go on")
    with step.process() as process:
        # Live: while the command goes on.
        wait_until(lambda: step.made().count("second") == 1, process)
        step.go_on("end")
        assert process.wait(60) == 0
    assert is_over(step)
    said = step.said()
    expected = {f"{when} {number}" for when in ("before", "after") for number in range(20)}
    assert {text: said[text] for text in expected} == dict.fromkeys(expected, 1)
    assert step.made() == ["first", "second"]
    assert checks(step.instance, step.run_id) == [("is_whole", True)]
    printed = capfd.readouterr().out
    assert (printed.count("printed before\n"), printed.count("printed after\n")) == (1, 1)
    assert list(step.agent.submitted) == [COMMAND.name]


def interrupt(step: Step, at: str, *, is_asked: bool) -> None:
    """Interrupt the op's process at some point, which somebody has asked for or not."""
    with step.process() as process:
        output = Path(step.agent.local.directory(COMMAND), "stdout")
        wait_until(
            lambda: step.said()[at] > 0 or (output.exists() and at in output.read_text()), process
        )
        if is_asked:
            run = step.instance.get_run_by_id(step.run_id)
            assert run is not None
            step.instance.report_run_canceling(run)
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.mark.parametrize("at", ["before 3", "printed before"])
def test_interrupt_that_asks_for_no_end_leaves_the_command(step: Step, at: str) -> None:
    """As when Slurm ends the job of the op's process to begin it again."""
    interrupt(step, at, is_asked=False)
    status = step.agent.local.status(COMMAND)
    assert status is not None
    assert status.phase is Phase.RUNNING


@pytest.mark.parametrize("at", ["before 3", "printed before"])
def test_termination_ends_the_command(step: Step, at: str) -> None:
    """SIGINT of the op's process is passed on, between two results and while it waits."""
    interrupt(step, at, is_asked=True)
    until = time.monotonic() + 30
    while (status := step.agent.local.status(COMMAND)) and status.phase is not Phase.ENDED:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert status is not None
    assert status.state == "CANCELLED"


def test_refusal_is_told_in_the_words_of_the_agent(step: Step) -> None:
    """What policy does not allow fails the step at once."""
    step.agent.refusal = "partition gpu is not for this location"
    with step.process() as process:
        process.wait(60)
    (entry,) = step.instance.all_logs(step.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    failed = entry.get_dagster_event().step_failure_data.user_failure_data
    assert failed is not None
    assert "was refused: partition gpu is not for this location" in (failed.description or "")
