"""Runs in an instance of their own, of whatever dagster is installed: also a program.

``python dagster_runs.py HOME FILE JOB`` makes a run and prints its id and arguments in JSON;
``python dagster_runs.py HOME RUN`` prints what has become of one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)  # also for Python 3.9
class DagsterRuns:
    """Runs of one job of a file, made by a Python that has dagster."""

    home: Path
    file: Path
    job: str
    python: str = sys.executable

    def command(self) -> tuple[str, list[str]]:
        """Make a run; return its id, and the command that executes it."""
        run, arguments = json.loads(self._asked(str(self.file), self.job))
        return run, [self.python, "-m", "dagster", "api", "execute_run", arguments]

    def status(self, run: str) -> str:
        """Return what has become of a run."""
        return self._asked(run).strip()

    def _asked(self, *words: str) -> str:
        self.home.mkdir(exist_ok=True)
        argv = [self.python, __file__, str(self.home), *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100)
        return done.stdout.splitlines()[-1]


def _main(home: str, *words: str) -> None:
    from dagster import DagsterInstance
    from dagster._core.definitions.reconstruct import ReconstructableRepository
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._serdes import serialize_value

    instance = DagsterInstance.local_temp(home)
    if len(words) == 1:
        run = instance.get_run_by_id(words[0])
        print(run.status.value if run else "missing")
        return
    file, name = words
    directory = str(Path(file).parent)
    repository = ReconstructableRepository.for_file(file, "defs", directory)
    job = repository.get_reconstructable_job(name)
    origin = job.get_python_origin()
    made = instance.create_run_for_job(job.get_definition(), job_code_origin=origin)
    arguments = ExecuteRunArgs(origin, made.run_id, instance.get_ref(), True)
    print(json.dumps([made.run_id, serialize_value(arguments)]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
