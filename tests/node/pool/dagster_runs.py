"""Runs of the installed dagster, in an instance of their own."""

from __future__ import annotations

import sys
from pathlib import Path

from dagster import DagsterInstance
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value


class DagsterRuns:
    """An instance in a directory, and runs of one job of a file."""

    def __init__(self, home: Path, file: Path, job: str) -> None:
        home.mkdir()
        self.instance = DagsterInstance.local_temp(str(home))
        repository = ReconstructableRepository.for_file(str(file), "defs", str(file.parent))
        self._job = repository.get_reconstructable_job(job)

    def command(self) -> tuple[str, list[str]]:
        """Make a run; return its id, and the command that executes it."""
        run = self.instance.create_run_for_job(
            self._job.get_definition(), job_code_origin=self._job.get_python_origin()
        )
        arguments = ExecuteRunArgs(
            job_origin=self._job.get_python_origin(),
            run_id=run.run_id,
            instance_ref=self.instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        words = ["-m", "dagster", "api", "execute_run", serialize_value(arguments)]
        return run.run_id, [sys.executable, *words]

    def status(self, run_id: str) -> str:
        """Return what has become of a run."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status.value
