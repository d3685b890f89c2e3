"""Runs of the jobs in ``user_code``, on an instance of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun

ROOT = Path(__file__).parents[2]
RUN = "6b0e7c1a-5f0d-4a57-9f5e-0d3c5a7f1b11"
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where runs happen: an instance, and a directory in which ops leave word."""

    instance: DagsterInstance
    directory: Path
    environment: Mapping[str, str]

    def start(
        self, job: str, run_id: str = RUN, *, resume: bool = False, **config: int | str
    ) -> subprocess.Popen[str]:
        """Start a run worker, the process that executes a run."""
        words = ["resume" if resume else "run", job, run_id, repr(config)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.dagster_hpc.run_worker", *words],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, job: str, run_id: str = RUN, **config: int | str) -> Run:
        """Execute a run, and return what has come of it."""
        worker = self.start(job, run_id, resume=False, **config)
        output, _ = worker.communicate(timeout=110)
        assert self.instance.has_run(run_id), output
        return self.of(run_id)

    def of(self, run_id: str = RUN) -> Run:
        """Return a run as it is now."""
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        entries = self.instance.all_logs(run_id, of_type=set(DagsterEventType))
        events = [entry.dagster_event for entry in entries if entry.dagster_event]
        return Run(found, events, self.directory)

    def words(self, name: str, word: str = "ran") -> list[str]:
        """Return the process numbers that an op has left."""
        path = self.directory / f"{name}.{word}"
        return path.read_text().splitlines() if path.exists() else []


@dataclass(frozen=True, slots=True)
class Run:
    """A run and its events."""

    run: DagsterRun
    events: Sequence[DagsterEvent]
    directory: Path

    @property
    def status(self) -> str:
        """How it has ended."""
        return self.run.status.value

    def steps(self, kind: str) -> list[str | None]:
        """Return the steps of which there is such an event, in order."""
        return [each.step_key for each in self.events if each.event_type_value == kind]

    def messages(self, step: str | None = None) -> str:
        """Return what the log says, of a step or of the run itself."""
        return "\n".join(str(each.message) for each in self.events if each.step_key == step)

    def failure(self, step: str) -> str:
        """Return the error with which a step has failed, with its cause."""
        (event,) = [
            each
            for each in self.events
            if each.step_key == step and each.event_type_value == "STEP_FAILURE"
        ]
        error = event.step_failure_data.error
        assert error is not None
        return error.to_string()

    @property
    def error(self) -> str:
        """The error with which the run has failed outside of its steps."""
        (event,) = [each for each in self.events if each.event_type_value == "PIPELINE_FAILURE"]
        error = event.job_failure_data.error
        assert error is not None
        return error.to_string()


@contextmanager
def bench(directory: Path, **environment: str) -> Iterator[Bench]:
    """Make an instance whose runs have this environment."""
    home, words = directory / "home", directory / "words"
    home.mkdir()
    words.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with DagsterInstance.from_config(str(home)) as instance:
        yield Bench(
            instance=instance,
            directory=words,
            environment={
                "DAGSTER_HOME": str(home),
                "TEST_DIRECTORY": str(words),
                "TMPDIR": str(directory),
                **environment,
            },
        )


def poll(look: Callable[[], Found], seconds: float = 60) -> Found:
    """Look until there is something."""
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.02)
    assert found
    return found
