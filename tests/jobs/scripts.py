"""Job scripts that bash runs, with a program of the test in place of the node program."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc_agent.config import Environment
from hpc_agent.jobs.directory import NodeSpec
from hpc_agent.jobs.preparation import JobPlan, script_values
from hpc_agent.jobs.rendering import Templates
from hpc_agent.store.workers import WorkerKind

SPEC = NodeSpec(
    key="run-1",
    kind=WorkerKind.RUN_WORKER,
    argv=[],
    environment={},
    working_directory=None,
    grace_seconds=1,
)
"""A job that does nothing: what matters is its script."""


def script_of(environment: Environment, program: Path, directory: Path) -> Path:
    """Write the script of a job whose node program is this one."""
    plan = JobPlan(spec=SPEC, title="t", settings=[], environment=environment)
    values = script_values(plan, directory=directory, node_python=str(program))
    path = directory / "job.sh"
    path.write_text(Templates().render("run_worker.sbatch.j2", values))
    return path


def program(directory: Path, text: str) -> Path:
    """Write an executable that takes the place of the node program's Python."""
    path = directory / "node"
    path.write_text(text)
    path.chmod(0o755)
    return path


def shown(environment: dict[str, Any], directory: Path, *names: str) -> list[str]:
    """Run a job's script and return what the node program finds in its environment."""
    printer = 'printf "%s\\0" ' + " ".join(f'"${{{name}-(unset)}}"' for name in names)
    script = script_of(
        Environment.model_validate(environment),
        program(directory, f"#!/bin/sh\n{printer}\n"),
        directory,
    )
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=True, env={})
    return done.stdout.split("\0")[:-1]


def done(environment: dict[str, Any], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a job's script, which says at its end what it has found."""
    text = '#!/bin/sh\necho "reached with <$FOUND>"\n'
    script = script_of(Environment.model_validate(environment), program(directory, text), directory)
    return subprocess.run(["bash", script], capture_output=True, text=True, check=False, env={})


@contextlib.contextmanager
def running(script: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a job's script until it has said ``ready``."""
    with subprocess.Popen(["bash", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()
