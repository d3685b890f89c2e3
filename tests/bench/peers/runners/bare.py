"""Bare ``sbatch`` of the same run worker, on a plain Dagster instance with SQLite."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from hpc_agent.errors import HpcAgentError
from tests.bench.peers.measures.reading import traced_python
from tests.bench.peers.runners.runner import CODE, RUN_SECONDS, Place, RunTimes, wait_for_ends

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus
    from dagster._core.definitions.reconstruct import ReconstructableRepository
    from dagster._grpc.types import ExecuteRunArgs

NAME = "bare sbatch"
_ENDED = {DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}


class BareSbatch:
    """Writes a script for each run and submits it; nobody looks after the job."""

    def __init__(self, place: Place, instance: Any, python: str) -> None:
        self.name = NAME
        self.at_most: int | None = None  # Slurm's nodes are what it has to wait for
        self._place = place
        self._instance = instance
        self._python = python
        self._repository = ReconstructableRepository.for_file(str(CODE), "defs")
        self._moments: dict[str, tuple[float, float]] = {}

    def launch(self, job: str = "no_op", config: Mapping[str, Any] | None = None) -> str:
        """Make a run and submit ``dagster api execute_run``; returns when sbatch has."""
        began = time.time()
        reconstructable = self._repository.get_reconstructable_job(job)
        run = self._instance.create_run_for_job(
            reconstructable.get_definition(),
            run_config=dict(config or {}),
            job_code_origin=reconstructable.get_python_origin(),
        )
        self._submit(run)
        self._moments[run.run_id] = began, time.time()
        return str(run.run_id)

    def argv(self, run: Any) -> list[str]:
        """Return the command of a run's worker."""
        arguments = ExecuteRunArgs(
            job_origin=run.job_code_origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
        )
        _, *words = arguments.get_command_args()
        return [self._python, "-m", "dagster", *map(str, words)]

    def ended(self, run_ids: Collection[str]) -> set[str]:
        """Return which of these have ended."""
        statuses = {run_id: self._instance.get_run_by_id(run_id).status for run_id in run_ids}
        for run_id, status in statuses.items():
            if status in _ENDED:
                raise HpcAgentError(f"{self.name}: run {run_id} ended {status.value}")
        return {each for each, status in statuses.items() if status is DagsterRunStatus.SUCCESS}

    def wait(self, run_ids: Sequence[str], *, seconds: float = RUN_SECONDS) -> list[RunTimes]:
        """Wait for the end of runs."""
        wait_for_ends(self, run_ids, seconds=seconds)
        return [self._times(run_id) for run_id in run_ids]

    def _submit(self, run: Any) -> None:
        script = self._place.directory / f"{run.run_id}.sh"
        script.write_text(f"#!/bin/sh\nexec {shlex.join(self.argv(run))}\n")
        output = f"--output={self._place.directory}/%j.out"
        subprocess.run(
            ["sbatch", "--parsable", "--mem=500M", "--time=10", output, str(script)],
            env={**self._place.cluster.environment, "DAGSTER_HOME": self._instance.root_directory},
            capture_output=True,
            text=True,
            check=True,
        )

    def _times(self, run_id: str) -> RunTimes:
        launched, submitted = self._moments[run_id]
        at = {
            entry.dagster_event.event_type: entry.timestamp
            for entry in self._instance.all_logs(run_id)
            if entry.is_dagster_event
        }
        return RunTimes(
            launched=launched,
            submitted=submitted,
            first_event=at[DagsterEventType.RUN_START],
            finished=at[DagsterEventType.RUN_SUCCESS],
        )


@contextlib.contextmanager
def bare(place: Place, *, python: str = sys.executable) -> Iterator[BareSbatch]:
    """Make the instance."""
    home = place.directory / "home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with DagsterInstance.from_config(str(home)) as instance:
        yield BareSbatch(place, instance, python)


@contextlib.contextmanager
def traced_bare(place: Place) -> Iterator[BareSbatch]:
    """The same with a Python that traces the calls of run workers."""
    with bare(place, python=str(traced_python(place, sys.executable))) as runner:
        yield runner
