"""A run worker: ``python -m tests.dagster_hpc.run_worker run|resume JOB RUN_ID CONFIG``."""

from __future__ import annotations

import ast
import sys

from dagster import DagsterInstance
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.execution.api import execute_run_iterator
from dagster._utils.interrupts import capture_interrupts


def main() -> None:
    """Execute a run as ``dagster api execute_run`` does."""
    how, name, run_id, config = sys.argv[1:]
    job = ReconstructableJob.for_module("tests.dagster_hpc.user_code", name)
    with capture_interrupts(), DagsterInstance.get() as instance:
        if how == "run":
            run = instance.create_run_for_job(
                job.get_definition(),
                run_id=run_id,
                run_config={"execution": {"config": ast.literal_eval(config)}},
                job_code_origin=job.get_python_origin(),
            )
        else:
            found = instance.get_run_by_id(run_id)
            assert found is not None
            run = found
        for _ in execute_run_iterator(job, run, instance, resume_from_failure=how == "resume"):
            pass


if __name__ == "__main__":
    main()
